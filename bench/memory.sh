#!/bin/sh
# Peaks of memory of quantizing big shapes within a limit, beside what was estimated. Writes bench/memory.csv (or --out FILE), a row for each run.
#
#   bench/memory.sh [--case "SHAPE BLOCKS WINDOWS LENGTH LIMIT"]… [--out FILE] [-- QUANTIZE OPTIONS…]
#
# Default: two blocks of Llama-2-7B's shape with 128 windows of 2,048 tokens within 8 GiB, and one of Llama-2-70B's with 12 of 1,024 within 20 GiB, equal
# sizes; about an hour on two cores, 4 GB of disk (TMPDIR). What follows -- goes to all runs. Weights are random, with the tokenizer of the example model;
# solvers are short (2 rounds of k-means, one of re-assignment), as the peak does not depend on how many rounds there are. Needs a built gptvq ($GPTVQ,
# default build/release/gptvq).
set -eu
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/scripts/lib.sh"
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out=$here/bench/memory.csv
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
while [ $# -gt 0 ]; do
  case $1 in
    --) shift; break ;;
    --case) [ $# -ge 2 ] || usage; echo "$2" >> "$scratch/cases"; shift 2 ;;
    --out) [ $# -ge 2 ] || usage; out=$2; shift 2 ;;
    *) usage ;;
  esac
done
gptvq=${GPTVQ:-$here/build/release/gptvq}
[ -x "$gptvq" ] || die "$gptvq is not built: make release"
[ -s "$scratch/cases" ] || printf '%s\n' 'llama-2-7b 2 128 2048 8G' 'llama-2-70b 1 12 1024 20G --allocate uniform' > "$scratch/cases"

echo "shape,blocks,windows,length,memory_limit,options,peak_bytes,estimated_peak_bytes,estimated_share,seconds,estimated_seconds,cpu_seconds" > "$scratch/csv"
while read -r shape blocks windows length limit options; do
  rm -rf "$scratch/model" "$scratch/packed"
  "$gptvq" bench make-model --shape "$shape" --layers "$blocks" --dense -o "$scratch/model" --quiet > /dev/null
  cp "$here"/examples/stories-4m/tokenizer*.json "$scratch/model/"
  echo '{"bos_token_id": 1}' > "$scratch/model/generation_config.json"
  # shellcheck disable=SC2086
  "$gptvq" quantize "$scratch/model" -o "$scratch/packed" --memory-limit "$limit" --calib "$here/examples/text/calib.txt" --calib-self 0 --judge-tokens 0 \
    --calib-samples "$windows" --calib-length "$length" --em-iterations 2 --reassign-rounds 1 --quiet --json $options "$@" > "$scratch/json" < /dev/null
  peak=$(json_get peak_bytes < "$scratch/json") estimated=$(json_get estimated_peak_bytes < "$scratch/json")
  echo "$shape,$blocks,$windows,$length,$limit,$options${options:+ }$*,$peak,$estimated,$(awk -v e="$estimated" -v p="$peak" 'BEGIN {printf "%.3f", e / p}'),$(
    for key in seconds estimated_seconds cpu_seconds; do json_get $key < "$scratch/json"; done | sed 's/null//; s/\(\.[0-9]\).*/\1/' | paste -sd , -)" >> "$scratch/csv"
done < "$scratch/cases"
mv "$scratch/csv" "$out"
cat "$out"
