#!/bin/sh
# What more calibration tokens buy: for each count of windows and each seed the default recipe at 2-D, 2.25 bits, its CPU seconds, layer error, perplexity and
# KL divergence on --text (--windows of 512 tokens); CSV on the standard output.
#
#   bench/calib-tokens.sh --model MODEL --calib FILE --text FILE [--samples 4,8,16,32,64,128] [--length 2048] [--seeds 0,1,2] [--windows 24] [--threads N] [-- OPTIONS…]
set -eu
gptvq=${GPTVQ:-$(cd "$(dirname "$0")/.." && pwd)/build/release/gptvq}
model='' calib='' text='' samples=4,8,16,32,64,128 length=2048 seeds=0,1,2 windows=24 threads=1
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | grep -v '^set' >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --) shift; break ;;
    --model | --calib | --text | --samples | --length | --seeds | --windows | --threads) [ $# -ge 2 ] || usage; eval "${1#--}=\$2"; shift 2 ;;
    *) usage ;;
  esac
done
[ -d "$model" ] && [ -f "$calib" ] && [ -f "$text" ] || usage
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
field() { awk -v name="\"$1\":" '$1 == name {gsub(",", ""); print $2; exit}' "$scratch/$2"; }
echo "samples,length,tokens,seed,cpu_seconds,mean_error,perplexity,kl"
for count in $(echo "$samples" | tr ',' ' '); do
  for seed in $(echo "$seeds" | tr ',' ' '); do
    "$gptvq" quantize "$model" -o "$scratch/out" --force --calib "$calib" --calib-samples "$count" --calib-length "$length" --seed "$seed" --dim 2 --bits 2.25 \
      --judge-tokens 0 --threads "$threads" --quiet --json "$@" > "$scratch/run"
    "$gptvq" compare "$model" "$scratch/out" --text "$text" --ctx 512 --max-windows "$windows" --quiet --json > "$scratch/kl"
    echo "$count,$length,$((count * length)),$seed,$(field cpu_seconds run),$(field mean_error run),$(field perplexity_b kl),$(field kl_mean kl)"
  done
done
