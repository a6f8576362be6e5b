#!/bin/sh
# Writes bench/quality.csv: exact bits per value, perplexity and KL divergence of every method and size on the example model.
#   bench/quality.sh [MODEL CALIB EVAL]
# Environment: QUALITY_OUT (the csv), QUALITY_CTX (512), QUALITY_SEEDS ("0 1 2"; a setting uses as many of them as it asks for),
# QUALITY_SETTINGS (bench/quality.settings). The columns with _2nd score only the second half of each window, as llama.cpp does.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
model=${1:-examples/stories-4m} calib=${2:-examples/text/calib.txt} text=${3:-examples/text/eval.txt}
csv=${QUALITY_OUT:-bench/quality.csv} ctx=${QUALITY_CTX:-512} seeds=${QUALITY_SEEDS:-"0 1 2"}
settings=${QUALITY_SETTINGS:-bench/quality.settings}
gptvq=${GPTVQ:-build/release/gptvq}
[ -x "$gptvq" ] || die "build first: make release"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# second_half MODEL: perplexity of the second halves of the windows
second_half() { "$gptvq" eval "$1" --text "$text" --ctx "$ctx" --score-from $((ctx / 2)) --json --quiet | json_get perplexity; }
excess() { awk -v p="$1" -v b="$2" 'BEGIN {printf "%.5f", p / b - 1}'; }

"$gptvq" eval "$model" --text "$text" --ctx "$ctx" --json --quiet > "$work/base.json"
base=$(json_get perplexity < "$work/base.json")
base_2nd=$(second_half "$model")
{
  echo "# $(basename "$model"); calibration $(basename "$calib") (128 windows), evaluation $(basename "$text"); $ctx tokens per window, no BOS; all predictions scored, but in the columns with _2nd"
  echo "setting,seed,bits_per_value,perplexity,excess,kl,kl_stderr,top1_agreement,perplexity_2nd,excess_2nd,layer_error,cpu_seconds,peak_mb"
  echo "bf16,,$(json_get bits_per_value < "$work/base.json"),$base,0,0,0,1,$base_2nd,0,0,,"
} > "$work/quality.csv"
grep -v '^#' "$settings" | grep . > "$work/settings"
while IFS='|' read -r setting options count; do
  case " $options " in # what is best where calibration and evaluation are of one kind of text
  *" --recipe paper "* | *" --method rtn "* | *" --method kmeans "*) ;;
  *) options="--calib-self 0 --mismatch 1 --mismatch-stream 1 $options" ;;
  esac
  for seed in $(echo "$seeds" | cut -d' ' -f-"$count"); do
    # shellcheck disable=SC2086
    "$gptvq" quantize "$model" -o "$work/packed" --force --quiet --json --calib "$calib" --calib-samples 128 --calib-length "$ctx" \
      --seed "$seed" $options > "$work/quantize.json" < /dev/null
    "$gptvq" compare "$model" "$work/packed" --text "$text" --ctx "$ctx" --json --quiet > "$work/compare.json"
    perplexity=$(json_get perplexity_b < "$work/compare.json")
    perplexity_2nd=$(second_half "$work/packed")
    peak=$(json_get peak_bytes < "$work/quantize.json" | awk '{printf "%.0f", $1 / 1e6}')
    row="$setting,$seed,$(json_get bits_per_value < "$work/quantize.json"),$perplexity,$(excess "$perplexity" "$base")"
    for key in kl_mean kl_stderr top1_agreement; do row="$row,$(json_get $key < "$work/compare.json")"; done
    row="$row,$perplexity_2nd,$(excess "$perplexity_2nd" "$base_2nd"),$(json_get mean_error < "$work/quantize.json")"
    row="$row,$(json_get cpu_seconds < "$work/quantize.json" | awk '{printf "%.1f", $1}'),$peak"
    echo "$row" | tee -a "$work/quality.csv" >&2
  done
done < "$work/settings"
mv "$work/quality.csv" "$csv"
echo "wrote $csv" >&2
