#!/bin/sh
# The main job on the bundled example model: quantize it by default and in other ways, show what each costs in quality, and write a story with the
# packed one. Calibration text is sampled from the model itself, as for someone who has no text at hand.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
gptvq=build/release/gptvq
model=examples/stories-4m
text=examples/text/eval.txt
out=${DEMO_OUT:-out/demo}
[ -x "$gptvq" ] || die "build first: make release"
mkdir -p "$out"
rows="$out/rows.txt"
: > "$rows"

measure() { # NAME FOLDER
  "$gptvq" eval "$2" --text "$text" --ctx 512 --json --quiet > "$out/eval.json"
  bytes=$(du -cb "$2"/*.safetensors | awk 'END {print $1}')
  printf '%s|%s|%s|%s\n' "$1" "$(json_get bits_per_value < "$out/eval.json")" "$bytes" \
    "$(json_get perplexity < "$out/eval.json")" >> "$rows"
}

measure "original (bf16)" "$model"
quantize() { # NAME FOLDER OPTIONS…
  name=$1 folder=$out/$2
  shift 2
  echo "== $name" >&2
  "$gptvq" quantize "$model" -o "$folder" --nominal --force --calib self --calib-length 512 --seed 1 "$@" --json > "$folder.json"
  measure "$name" "$folder"
}
quantize "RTN, 2 bits"          rtn-2.25    --method rtn  --bits 2.25
quantize "GPTQ, 2 bits"         gptq-2.25   --recipe paper --method gptq --bits 2.25
quantize "GPTVQ, the default"   gptvq       # a trellis of 2.25 bits, embedding and head in 4
quantize "GPTVQ 2-D, 2.25 bits" gptvq-2.25  --dim 2 --bits 2.25
quantize "GPTVQ 4-D, 2.25 bits" gptvq4-2.25 --dim 4 --bits 2.25
quantize "GPTVQ 2-D, 3.125 bits" gptvq-3.125 --dim 2 --bits 3.125

echo
echo "Perplexity on $text: 512-token windows, every prediction scored; the model's own tokenizer."
awk -F'|' 'BEGIN {printf "%-24s %14s %12s %11s %9s\n", "", "bits per value", "model bytes", "perplexity", "excess"}
  NR == 1 {base = $4}
  {printf "%-24s %14.4f %12d %11.4f %8.1f%%\n", $1, $2, $3, $4, 100 * ($4 / base - 1)}' "$rows"
json=$out/gptvq.json
printf '\nThe default: %s weights quantized in %.1f s, peak memory %.0f MB.\n' \
  "$(json_get linear_values < "$json")" "$(json_get seconds < "$json")" \
  "$(json_get peak_bytes < "$json" | awk '{print $1 / 1e6}')"
echo
echo "A story from it:"
"$gptvq" generate "$out/gptvq" -p "Once upon a time" -n 120 --temp 0.7 --seed 3
