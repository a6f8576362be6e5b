#!/bin/sh
# Writes bench/robust.csv: what calibrations and regularisations are worth on kinds of text that calibration saw and did not see.
#   bench/robust.sh MODEL TEXTS [SETTING ...]
# TEXTS: the folder that bench/texts.py makes. Settings stand in bench/robust.settings; those named are made anew, without any all are.
# Environment: ROBUST_OUT (the csv), ROBUST_SETTINGS, ROBUST_KINDS, ROBUST_WINDOWS (8 of 512 tokens of each kind), GPTVQ.
# Two more tables come from here: bench/targets.sh, and
#   ROBUST_SETTINGS=bench/ingredients.settings ROBUST_OUT=bench/ingredients.csv bench/robust.sh MODEL TEXTS
# Behind the divergences stand the bytes of the safetensors files and each kind's excess of perplexity over the original's; rows of before have neither.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
[ $# -ge 2 ] || die "usage: bench/robust.sh MODEL TEXTS [SETTING ...]"
model=$1 texts=$2
shift 2
csv=${ROBUST_OUT:-bench/robust.csv} settings=${ROBUST_SETTINGS:-bench/robust.settings} windows=${ROBUST_WINDOWS:-8}
gptvq=${GPTVQ:-build/release/gptvq}
[ -x "$gptvq" ] || die "build first: make release"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
kinds=${ROBUST_KINDS:-prose dialogue code german mathematics markup stories}
cp examples/text/eval.txt "$work/stories.txt"
judged=
for kind in $kinds; do
  [ "$kind" = stories ] || cp "$texts/$kind.txt" "$work/"
  judged="$judged --text $work/$kind.txt"
done

[ -s "$csv" ] || {
  echo "# $(basename "$model"), $windows windows of 512 tokens of each text of bench/texts.py and of examples/text/eval.txt (stories); KL divergence from the original"
  echo "setting,bits_per_value,$(echo $kinds | tr ' ' ','),mean,worst,cpu_seconds"
} > "$csv"
grep -q '^setting,.*,bytes,' "$csv" || sed -i "/^setting,/s/\$/,bytes,excess_$(echo $kinds | sed 's/ /,excess_/g')/" "$csv"
grep -v '^#' "$settings" | grep . > "$work/settings"
while IFS='|' read -r setting options; do
  wanted=$#
  for name in "$@"; do [ "$name" != "$setting" ] || wanted=0; done
  [ "$wanted" = 0 ] || continue
  # shellcheck disable=SC2086
  "$gptvq" quantize "$model" -o "$work/packed" --force --quiet --json --bits 2.25 --calib-samples 32 --calib-length 1024 --judge-tokens 0 \
    $(echo "$options" | sed "s|T/|$texts/|g") > "$work/quantize.json" < /dev/null
  # shellcheck disable=SC2086
  "$gptvq" compare "$model" "$work/packed" $judged --ctx 512 --max-windows "$windows" --compute bf16 --json --quiet > "$work/compare.json"
  row=$(grep -o '"kl_mean": [0-9.e+-]*' "$work/compare.json" |
    awk '{row = row sprintf("%.4f,", $2); sum += $2; if ($2 > worst) worst = $2} END {printf "%s%.4f,%.4f", row, sum / NR, worst}')
  excess=$(grep -oE '"perplexity_[ab]": [0-9.e+-]*' "$work/compare.json" |
    awk '$1 ~ /_a/ {base = $2} $1 ~ /_b/ {row = row sprintf(",%.5f", $2 / base - 1)} END {print row}')
  cpu=$(grep -m 1 cpu_seconds "$work/quantize.json" | awk '{printf "%.0f", $2}')
  bytes=$(du -cb "$work/packed"/*.safetensors | awk 'END {print $1}')
  grep -v "^$setting," "$csv" > "$work/csv" || :
  echo "$setting,$(json_get bits_per_value < "$work/quantize.json"),$row,$cpu,$bytes$excess" | tee -a "$work/csv" >&2
  cp "$work/csv" "$csv"
done < "$work/settings"
