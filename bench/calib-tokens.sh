#!/bin/sh
# What more calibration tokens buy: for each count of windows and each seed the default recipe at 2-D, 2.25 bits, its CPU seconds, layer error, and the KL
# divergence from the original on each --text (--windows of 512 tokens); CSV on the standard output.
#
#   bench/calib-tokens.sh --model MODEL --calib FILE --text FILE [--text FILE …] [--samples 4,8,16,32,64,128] [--length 2048] [--seeds 0,1,2] [--windows 24] [--threads N]
#                         [-- OPTIONS…]
set -eu
gptvq=${GPTVQ:-$(cd "$(dirname "$0")/.." && pwd)/build/release/gptvq}
model='' calib='' text='' texts='' samples=4,8,16,32,64,128 length=2048 seeds=0,1,2 windows=24 threads=1
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | grep -v '^set' >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --) shift; break ;;
    --text) [ $# -ge 2 ] && [ -f "$2" ] || usage; text="$text,$(basename "$2" .txt)" texts="$texts --text $2"; shift 2 ;;
    --model | --calib | --samples | --length | --seeds | --windows | --threads) [ $# -ge 2 ] || usage; eval "${1#--}=\$2"; shift 2 ;;
    *) usage ;;
  esac
done
[ -d "$model" ] && [ -f "$calib" ] && [ -n "$texts" ] || usage
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
field() { awk -v name="\"$1\":" '$1 == name {gsub(",", ""); print $2; exit}' "$scratch/$2"; }
echo "samples,length,tokens,seed,cpu_seconds,mean_error$text"
for count in $(echo "$samples" | tr ',' ' '); do
  for seed in $(echo "$seeds" | tr ',' ' '); do
    "$gptvq" quantize "$model" -o "$scratch/out" --force --calib "$calib" --calib-samples "$count" --calib-length "$length" --seed "$seed" --dim 2 --bits 2.25 --nominal \
      --judge-tokens 0 --threads "$threads" --quiet --json "$@" > "$scratch/run"
    # shellcheck disable=SC2086
    "$gptvq" compare "$model" "$scratch/out" $texts --ctx 512 --max-windows "$windows" --compute bf16 --quiet --json > "$scratch/kl"
    echo "$count,$length,$((count * length)),$seed,$(field cpu_seconds run),$(field mean_error run)$(grep -o '"kl_mean": [0-9.e+-]*' "$scratch/kl" | awk '{printf ",%s", $2}')"
  done
done
