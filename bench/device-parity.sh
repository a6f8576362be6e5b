#!/bin/sh
# The bundled example quantized on a device and on the CPU, with reduced calibration: layer errors and perplexity beside each other.
#   bench/device-parity.sh [--device shim|cuda[:N]]
# Fails where the mean layer error, or that of q, k and v of the first block, whose inputs nothing has changed yet, is more than 1 % from the CPU's (a later layer's
# inputs are what those before it gave, where a tie may have fallen the other way). The perplexity stands beside those of the CPU with other seeds: three say too little
# of their spread to judge by.
# BUILD: the build folder (build/release). Takes some three CPU minutes on the shim.
set -eu
cd "$(dirname "$0")/.."
device=shim
case ${1:-} in
  "") ;;
  --device) device=${2:?} ;;
  *) echo "usage: bench/device-parity.sh [--device shim|cuda[:N]]" >&2; exit 2 ;;
esac
gptvq=${BUILD:-build/release}/gptvq
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# fp32: what both do alike. What the solver does after its first assignment is cut short.
quantize() {
  "$gptvq" quantize examples/stories-4m -o "$scratch/$1" --calib examples/text/calib.txt --calib-self 0 --calib-samples 8 --calib-length 256 --calib-compute fp32 \
    --em-iterations 4 --reassign-rounds 1 --judge-tokens 0 --seed "$2" --device "$3" --quiet > /dev/null
  "$gptvq" inspect "$scratch/$1" --json | sed -n 's/^ *"error": \([0-9.e-]*\),\{0,1\}$/\1/p' > "$scratch/$1.errors"
  "$gptvq" eval "$scratch/$1" --text examples/text/eval.txt --ctx 512 --quiet --json | sed -n 's/^ *"perplexity": \([0-9.]*\),\{0,1\}$/\1/p' > "$scratch/$1.perplexity"
}
for seed in 0 1 2; do quantize "cpu$seed" $seed cpu; done
quantize device 0 "$device"
paste "$scratch/cpu0.errors" "$scratch/device.errors" | awk -v device="$device" '
  {a += $1; b += $2; d = $2 / $1 - 1; if (d < 0) d = -d; if (d > most) most = d; if (NR <= 3 && d > first) first = d}
  END {
    mean = b / a - 1
    printf "layer errors on %s beside the CPU: mean %+.3f %%, the farthest of %d %.3f %%, of the first three %.3f %%\n", device, 100 * mean, NR, 100 * most, 100 * first
    exit !(NR > 3 && mean < 0.01 && mean > -0.01 && first < 0.01)
  }'
awk -v device="$device" '
  FNR == 1 {p[++n] = $1}
  END {
    low = high = p[1]
    for (i = 2; i <= 3; i++) {if (p[i] < low) low = p[i]; if (p[i] > high) high = p[i]}
    printf "perplexity on %s %.4f, on the CPU %.4f (seeds 0 to 2: %.4f to %.4f)\n", device, p[4], p[1], low, high
    exit n != 4
  }' "$scratch/cpu0.perplexity" "$scratch/cpu1.perplexity" "$scratch/cpu2.perplexity" "$scratch/device.perplexity"
