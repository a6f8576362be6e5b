# quantize --dry-run: size, memory and time, from headers alone; nothing is written.
. "$SOURCE/tests/cli/lib.sh"

files > "$capture/before"
expect_ok "$GPTVQ" quantize "$model" --calib absent.txt --calib-samples 8 --calib-length 128 --dry-run --json
files | cmp -s - "$capture/before" || die "something was written"
[ "$(json linear_values)" = 3145728 ] || die "another number of weights"
planned=$(json output_bytes)
awk -v least="$(json least_bytes)" -v peak="$(json peak_bytes)" 'BEGIN {exit !(0 < least && least <= peak)}' || die "no memory"
grep -q '"name": "Hessians"' "$capture/out" && ! grep -q '"name": "writing"' "$capture/out" || die "stages that cannot be estimated have a figure"
awk -v seconds="$(json seconds)" 'BEGIN {exit !(seconds > 0)}' || die "no time"
expect_ok "$GPTVQ" quantize "$model" --calib absent.txt --calib-samples 8 --calib-length 128 --dry-run
expect_out '^output .* 3145728 weights'
expect_out '^  forward, quantized '
expect_out '^sizes +trellis, at most 2\.2500 bits per weight, embedding 4, output head 4$'
expect_out '^  gradients '
expect_out '^  sensitivities '
expect_out '^  calibration text .*FLOP'
expect_out '^  losses at the end '
judged() { # of `--dry-run --json` flop of the last stage
  awk '$1 == "\"name\":" {at = /losses at the end/} at && $1 == "\"flop\":" {gsub(",", ""); print $2}' "$capture/out"
}
expect_ok "$GPTVQ" quantize "$model" --calib absent.txt --calib-samples 8 --calib-length 128 --dry-run --json
both=$(judged)
expect_ok "$GPTVQ" quantize "$model" --calib self --calib-samples 8 --calib-length 128 --dry-run --json
near "$both" "$(awk -v own="$(judged)" 'BEGIN {printf "%.0f", 2 * own}')" 1e-9 # two windows, and two of the text
! grep -q '^  other ' "$capture/out" || die "fine-tuning that nobody asked for"
expect_ok "$GPTVQ" quantize "$model" --calib absent.txt --calib-samples 8 --calib-length 128 --calib-self 0 --judge-tokens 0 --finetune-steps 4 --guide 0.5 \
  --allocate uniform --dry-run
expect_out '^  other '
expect_out '^  gradients '
! grep -q '^  calibration text .*FLOP\|^  losses at the end ' "$capture/out" || die "a text that nobody writes or judges by"
for options in '--allocate uniform' '--bits 2.04'; do
  expect_ok "$GPTVQ" quantize "$model" --calib absent.txt --calib-samples 8 --calib-length 128 $options --dry-run
  expect_out '^sizes +trellis, 2\.0344 bits per weight, embedding 4, output head 4$'
  ! grep -q gradients "$capture/out" || die "gradients that nobody asked for"
done
expect_ok "$GPTVQ" quantize "$model" --calib absent.txt --calib-samples 8 --calib-length 128 --dry-run --bits 2.5
expect_out '^sizes +trellis, at most 2\.5000 bits per weight, '
expect_ok "$GPTVQ" quantize "$model" -o out --method rtn --bits 3.125 --quiet
expect_ok "$GPTVQ" quantize "$model" --method rtn --bits 3.125 --dry-run --json
near "$(json output_bytes)" "$(cat out/*.safetensors | wc -c)" 0.02 # headers
planned_bits=$(json bits) planned_format=$(json format)
expect_ok "$GPTVQ" inspect out --json
near "$(json bits_per_value)" "$planned_bits" 1e-9
[ "$planned_format" = uniform ] || die "rtn in the format $planned_format"
[ "$planned" -gt 0 ] || die "no size"
expect_fail 3 'absent' "$GPTVQ" quantize absent --calib x --dry-run
expect_fail 5 'already quantized' "$GPTVQ" quantize out --calib x --dry-run
