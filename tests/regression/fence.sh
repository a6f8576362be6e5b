#!/bin/sh
# Packed bytes of every method and recipe: sha256 over all files of the folders that short runs on the example and on the tiny
# models make. Work that should change no output is done behind this fence; what does change it shows as a diff of fence.txt.
#   fence.sh PROGRAM           compares with fence.txt; exit 77, skipped: other libraries or processor than its head names
#   fence.sh PROGRAM --write   makes fence.txt again
#   fence.sh PROGRAM --print   the lines, for comparing two programs anywhere
# Instruction sets are held to AVX2, of the libraries as well, so that processors agree.
set -eu
program=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
source=$here/../..
export LC_ALL=C GPTVQ_CPU=avx2 OPENBLAS_CORETYPE=Haswell
libraries="$(uname -m), openblas $(pkg-config --modversion openblas), glibc $(ldd --version | sed -n '1s/.* //p')"
if [ "${2:-}" = "" ]; then
  grep -q '^flags.* avx2 ' /proc/cpuinfo || { echo "fence: no AVX2 here" >&2; exit 77; }
  grep -qx "# $libraries" "$here/fence.txt" || { echo "fence: recorded elsewhere, not with $libraries" >&2; exit 77; }
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

# A folder's files in order of their names, and what is in them; config.json with one version of the program, whatever it is; without the record of
# the run, which has its times.
digest() {
  (cd "$1" && sed -i 's/"gptvq_version": "[^"]*"/"gptvq_version": "0.1.0"/' config.json && for file in $(ls | grep -v "^gptvq.json$"); do
    echo "$file"
    cat "$file"
  done) | sha256sum | cut -c1-32
}
failed=0
fence() { # NAME MODEL OPTIONS…
  name=$1 folder=$2
  shift 2
  if "$program" quantize "$source/$folder" -o "$name" "$@" --quiet > "$name.log" 2>&1; then
    printf '%s  %s\n' "$(digest "$name")" "$name"
  else
    echo "fence: $name failed: $(tail -n 1 "$name.log")" >&2
    failed=1
  fi
  rm -rf "$name" "$name.log"
}
example() { # NAME OPTIONS…: the real model
  variant=$1
  shift
  fence "example-$variant" examples/stories-4m --calib "$source/examples/text/calib.txt" --calib-samples 4 --calib-length 64 \
    --em-iterations 3 "$@"
}
tiny() { # MODEL-VARIANT OPTIONS…: a random one of a few thousand weights; VARIANT has no hyphen
  variant=$1
  shift
  fence "$variant" "tests/golden/model/${variant%-*}" --calib self --calib-samples 4 --calib-length 16 "$@"
}
vq="--em-iterations 3 --group-size 256 --group-columns 32 --index-bits 3"
all() {
  example default
  example default_3bit --bits 3
  example gptvq_2d --dim 2
  example gptvq_4d --dim 4
  example paper --recipe paper
  example gptq --method gptq
  example rtn --method rtn --bits 3.125
  # shellcheck disable=SC2086
  {
    tiny llama-rtn --method rtn --index-bits 3 --group-size 32
    tiny llama-gptq_paper --recipe paper --method gptq --index-bits 4 --group-size 16
    tiny llama-kmeans --method kmeans $vq
    tiny llama-1d $vq --dim 1
    tiny llama-4d $vq --dim 4 --index-bits 4
    tiny llama-paper_1d --recipe paper $vq --dim 1
    tiny llama-paper_2d --recipe paper $vq --codebook-bits 16
    tiny llama-paper_seed --recipe paper $vq --em-init kmeans++ --seed 7
    tiny llama-cdf $vq --em-init cdf
    tiny llama-scales $vq --scale-block 16
    tiny llama-svd $vq --dim 1 --svd-rank 3
    tiny llama-head $vq --head-bits 8
    tiny llama-allocate --dim 2 --allocate sensitivity --bits 4 --em-iterations 3 --group-columns 32
    tiny llama-finetune $vq --finetune-steps 3
    tiny llama-finetune_indices $vq --finetune-steps 2 --finetune-index-rate 0.001
    tiny llama-finetune_block $vq --finetune-block-steps 3
    tiny llama-columns $vq --act-order columns
    tiny llama-order_off $vq --no-act-order --no-true-sequential --mismatch 0 --mismatch-stream 0
    tiny llama-guide $vq --guide 0.5
    tiny llama-trellis_4bit --code trellis --index-bits 4 --em-iterations 3 --group-columns 32 --act-order columns --finetune-steps 2
    tiny llama-trellis_allocate --bits 2.6 --em-iterations 3 --group-columns 32 --allocate sensitivity --embedding-bits 4
    tiny llama-plain $vq --no-hessian-weights --metric diagonal --no-codebook-update --reassign-rounds 0 --beam 1
    for model in "$source"/tests/golden/model/*/; do
      model=$(basename "$model")
      tiny "$model-default" $vq
      tiny "$model-gptq" --method gptq --index-bits 4 --group-size 32
    done
    tiny gemma2-finetune $vq --finetune-steps 3
    tiny gemma2-finetune_block $vq --finetune-block-steps 3
    tiny gemma2-allocate --dim 2 --allocate sensitivity --bits 4 --em-iterations 3 --group-columns 32 --guide 0.5
  }
}
case "${2:-}" in
  --print) all ;;
  --write)
    all > made.txt
    [ $failed = 1 ] || { echo "# $libraries"; sort -k 2 made.txt; } > "$here/fence.txt" ;;
  *)
    all > made.txt
    sort -k 2 made.txt > new.txt
    grep -v '^#' "$here/fence.txt" | diff - new.txt || { echo "fence: packed bytes have changed" >&2; failed=1; } ;;
esac
exit $failed
