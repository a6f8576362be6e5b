#!/bin/sh
# CPU time and quality of quantizing beside an older commit of this repository, built beside it, the two in turns on this machine: default recipe, 2-D,
# 2.25 bits. Prints a table for each program: stages (where it reports them), CPU seconds, wall seconds, KL divergence.
#
#   bench/quantize-speed.sh --model MODEL --calib FILE --text FILE [--full] [--commit 6271ecb] [--threads N] [--windows 24] [--rounds N] [-- QUANTIZE OPTIONS…]
#   bench/quantize-speed.sh --shape NAME [--blocks 1] [--calib FILE] …
#
# Short (a few minutes): a copy of the model with its first two blocks, 8 calibration windows of 2,048 tokens of the text (the new program writes none itself
# and measures no losses at the end, whose time would be that of the head); CPU seconds for each window and block show what a whole run takes.
# --shape: the same of a model of random weights in that shape (bench make-model), with the tokenizer of the example model: --blocks of it, 32 windows of
# 1,024 tokens (of --calib, default examples/text/calib.txt). llama-2-7b: an hour.
# --full: the whole model at each program's default calibration, with perplexity and KL divergence on --text (--windows of 512 tokens); an hour or more.
# What follows -- goes to both (for example --calib-samples 64).
# The copy is made by $PYTHON (default python3) with the standard library alone. $SCRATCH (default: a folder that is removed) keeps builds and models.
set -eu
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE # a machine's own kernels: the older commit multiplies with nothing else
here=$(cd "$(dirname "$0")/.." && pwd)
commit=6271ecb threads=1 windows=24 rounds=1 full=0 model='' calib='' text='' blocks_only='' shape='' blocks=1
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --full) full=1; shift; continue ;;
    --) shift; break ;;
    --model | --shape | --blocks | --calib | --text | --commit | --threads | --windows | --rounds) [ $# -ge 2 ] || usage; eval "${1#--}=\$2"; shift 2 ;;
    *) usage ;;
  esac
done
if [ -n "$shape" ]; then
  [ -z "$model" ] && [ $full = 0 ] || usage
  [ -n "$calib" ] || calib=$here/examples/text/calib.txt
else [ -d "$model" ] || usage
fi
[ -f "$calib" ] || usage
[ $full = 0 ] || [ -f "$text" ] || usage
new=${GPTVQ:-$here/build/release/gptvq}
[ -x "$new" ] || { echo "quantize-speed.sh: $new is not built: make release" >&2; exit 2; }
[ -n "${SCRATCH:-}" ] || { SCRATCH=$(mktemp -d); trap 'rm -rf "$SCRATCH"' EXIT; }
old=$SCRATCH/$commit/build/gptvq
if [ ! -x "$old" ]; then
  mkdir -p "$SCRATCH/$commit"
  git -C "$here" archive "$commit" | tar -x -C "$SCRATCH/$commit"
  cmake -S "$SCRATCH/$commit" -B "$SCRATCH/$commit/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_DISABLE_FIND_PACKAGE_dnnl=ON > "$SCRATCH/build.log" &&
    cmake --build "$SCRATCH/$commit/build" --target gptvq -j 2 >> "$SCRATCH/build.log" || { tail -n 5 "$SCRATCH/build.log" >&2; exit 1; }
fi
if [ -n "$shape" ]; then
  model=$SCRATCH/$shape
  "$new" bench make-model --shape "$shape" --layers "$blocks" --dense -o "$model" --force --quiet > /dev/null
  cp "$here"/examples/stories-4m/tokenizer*.json "$model/"
  echo '{"bos_token_id": 1}' > "$model/generation_config.json"
  set -- --calib-samples 32 --calib-length 1024 "$@"
  blocks_only="--calib-self 0 --judge-tokens 0"
elif [ $full = 0 ]; then
  "${PYTHON:-python3}" "$here/bench/first_blocks.py" "$model" "$SCRATCH/two" 2
  model=$SCRATCH/two
  set -- --calib-samples 8 --calib-length 2048 "$@"
  blocks_only="--calib-self 0 --judge-tokens 0"
fi
field() { awk -v name="\"$1\":" '$1 == name {gsub(",", ""); print $2; exit}' "$2"; }
run() { # NAME PROGRAM OPTIONS…
  name=$1 program=$2
  shift 2
  out=$SCRATCH/out-$name
  "$program" quantize "$model" -o "$out" --force --calib "$calib" --dim 2 --index-bits 4 --group-size 1024 --threads "$threads" --quiet --json "$@" > "$SCRATCH/$name.json" &
  wait $! || { echo "quantize-speed.sh: $name failed" >&2; exit 1; }
}
for round in $(seq "$rounds"); do
  for name in old new; do
    program=$old only=''
    [ $name = old ] || program=$new only=$blocks_only
    # CPU seconds by the shell: older commits do not report them
    times > "$SCRATCH/times"
    start=$(date +%s)
    # shellcheck disable=SC2086
    run $name "$program" $only "$@"
    wall=$(($(date +%s) - start))
    times >> "$SCRATCH/times"
    cpu=$(sed 's/[ms]/ /g' "$SCRATCH/times" | awk 'NR == 2 {before = 60 * ($1 + $3) + $2 + $4} NR == 4 {print 60 * ($1 + $3) + $2 + $4 - before}')
    printf '%s round %s: %s CPU s, %s s, %s bits, mean layer error %s' $name "$round" "$cpu" "$wall" "$(field bits_per_value "$SCRATCH/$name.json")" \
      "$(field mean_error "$SCRATCH/$name.json")"
    eval "cpu_$name=\$cpu"
    if [ $full = 1 ]; then
      "$new" compare "$model" "$SCRATCH/out-$name" --text "$text" --ctx 512 --max-windows "$windows" --quiet --json > "$SCRATCH/$name.kl.json"
      printf ', perplexity %s, KL %s' "$(field perplexity_b "$SCRATCH/$name.kl.json")" "$(field kl_mean "$SCRATCH/$name.kl.json")"
    fi
    echo
  done
  awk -v a="$cpu_old" -v b="$cpu_new" 'BEGIN {printf "ratio of CPU time: 1 / %.2f\n", a / b}'
done
echo "stages of the new program (GFLOP/s of what \`gptvq bench quantize\` counts):"
awk '$1 == "\"name\":" {sub(/.*: "/, ""); sub(/".*/, ""); name = $0} $1 == "\"cpu_seconds\":" && name != "" {gsub(",", ""); cpu = $2}
  $1 == "\"flop\":" {gsub(",", ""); printf "  %-20s %9.2f s %8.1f GFLOP/s\n", name, cpu, (cpu > 0 ? $2 / cpu / 1e9 : 0)}' "$SCRATCH/new.json"
