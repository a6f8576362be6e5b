#!/bin/sh
# The recipes on a text they were not chosen on: calib.txt is cut in two; each half calibrates what the other one evaluates. Writes bench/halves.csv.
#   bench/halves.sh [MODEL TEXT]
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
model=${1:-examples/stories-4m} text=${2:-examples/text/calib.txt}
halves=$(mktemp -d)
trap 'rm -rf "$halves"' EXIT
split -n l/2 -a 1 "$text" "$halves/half-"
cat > "$halves/settings" << 'SETTINGS'
paper 2d-2.125|--recipe paper --dim 2 --bits 2.125|1
gptvq-2d-2.125|--dim 2 --bits 2.125 --nominal|1
paper 4d-2.25|--recipe paper --dim 4 --bits 2.25|1
gptvq-4d-2.25|--dim 4 --bits 2.25 --nominal|1
SETTINGS
export QUALITY_SETTINGS="$halves/settings" QUALITY_SEEDS=0
QUALITY_OUT=$halves/1.csv bench/quality.sh "$model" "$halves/half-a" "$halves/half-b"
QUALITY_OUT=$halves/2.csv bench/quality.sh "$model" "$halves/half-b" "$halves/half-a"
{ cat "$halves/1.csv"; grep -v '^setting' "$halves/2.csv"; } > "$halves/halves.csv"
mv "$halves/halves.csv" bench/halves.csv
echo "wrote bench/halves.csv" >&2
