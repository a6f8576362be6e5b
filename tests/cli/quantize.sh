# Quantize, inspect, evaluate, generate, export: the main job on small calibration, every method; same bytes for any number of threads.
. "$SOURCE/tests/cli/lib.sh"

quick="--calib $SOURCE/examples/text/calib.txt --calib-samples 2 --calib-length 128 --em-iterations 3 --reassign-rounds 1 --quiet --json"
quantize() { # OUT OPTIONS…
  out=$1
  shift
  # shellcheck disable=SC2086
  expect_ok "$GPTVQ" quantize "$model" -o "$out" $quick "$@"
}
# check FOLDER LOW HIGH: exact bits within the range, counted from the files, error known, and the model still works
check() {
  bits=$(json bits_per_value)
  awk -v b="$bits" -v l="$2" -v h="$3" 'BEGIN {exit !(b >= l && b <= h)}' || die "$1 has $bits bits per value, expected $2 to $3"
  bytes=$(json linear_bytes) error=$(json mean_error)
  [ "$(json linear_values)" = 3145728 ] && [ "$(json layers)" = 28 ] || die "$1: wrong number of values or layers"
  [ ! -e "$1.partial" ] || die "$1.partial is left"
  expect_ok "$GPTVQ" inspect "$1" --json
  [ "$(json verified) $(json packed)" = "true true" ] || die "$1: the account is wrong"
  [ "$(json linear_bytes)" = "$bytes" ] || die "$1: report and files disagree about the bytes"
  near "$(json bits_per_value)" "$bits" 1e-9
  near "$bits" "$(awk -v b="$bytes" 'BEGIN {printf "%.12f", 8 * b / 3145728}')" 1e-9
  near "$(json mean_error)" "$error" 1e-6
  expect_ok "$GPTVQ" compare "$model" "$1" --text "$text" --ctx 256 --max-windows 4 --json --quiet
  awk -v a="$(json perplexity_a)" -v b="$(json perplexity_b)" -v f="$4" 'BEGIN {exit !(b > 0.97 * a && b < f * a)}' ||
    die "$1: perplexity $(json perplexity_b) against $(json perplexity_a), expected at most $4 times that"
}
quantize rtn-4 --method rtn --bits 4.17
check rtn-4 4.12 4.17 1.05
quantize kmeans-3 --method kmeans --dim 2 --bits 3.125
check kmeans-3 3.1 3.125 1.2
quantize gptq-3 --method gptq --bits 3.16
check gptq-3 3.12 3.16 1.1
quantize vq-1 --dim 1 --bits 2.25
check vq-1 2.2 2.25 1.4
quantize vq-2 --dim 2 --bits 2.25 --threads 1
check vq-2 2.2 2.25 1.4
vq_2=$(json perplexity_b)
quantize vq-2-paper --recipe paper --em-iterations 4 --dim 2 --bits 2.25
check vq-2-paper 2.2656 2.2657 1.5 # as the paper names sizes
quantize vq-4 --dim 4 --centroids 256 --group-size 32768
check vq-4 2.2 2.4 1.4

# Where the time went. Each stream passes the blocks once (786,432 weights and 8 heads of 32 in each of 4 blocks, 2 windows of 128 tokens), the quantized one
# but for the last down_proj (768 x 256), after which nobody looks.
flop() { awk -v name="\"$1\"" '$1 == "\"name\":" {found = index($0, name)} found && $1 == "\"flop\":" {printf "%.0f", $2}' "$capture/out"; }
quantize stages --dim 2 --bits 2.25 --calib-compute fp32
attention=$((4 * 2 * 4 * (128 * 129 / 2) * 256))
[ "$(flop 'forward, original')" = $((4 * 2 * 256 * 786432 + attention)) ] || die "forward, original: $(flop 'forward, original') FLOP"
[ "$(flop 'forward, quantized')" = $((4 * 2 * 256 * 786432 - 2 * 256 * 768 * 256 + attention)) ] ||
  die "forward, quantized: $(flop 'forward, quantized') FLOP"
near "$(awk '$1 == "\"seconds\":" {gsub(",", ""); n++; if (n > 1) s += $2; else whole = $2} END {print s / whole}' "$capture/out")" 1 0.02

# the end says what was lost, on windows that were not calibrated on; without a text the model writes all
quantize judged --dim 2 --bits 3.125
stage_seconds() { awk -v name="\"$1\"" '$1 == "\"name\":" {found = index($0, name)} found && $1 == "\"seconds\":" {print $2 + 0}' "$capture/out"; }
for stage in 'calibration text' 'losses at the end'; do
  awk -v s="$(stage_seconds "$stage")" 'BEGIN {exit !(s > 0.001)}' || die "no time for the $stage: $(stage_seconds "$stage")"
done
[ "$(grep -c '"kl":' "$capture/out")" = 2 ] && [ "$(grep -c '"seen": false' "$capture/out")" = 2 ] || die "the loss is not in the report"
grep -q '"source": "calib.txt: 1, self: 1"' judged/config.json || die "half of the windows are not the model's"
expect_ok "$GPTVQ" quantize "$model" -o written --calib-samples 2 --calib-length 128 --em-iterations 3 --reassign-rounds 1 --quiet
expect_out '^on its own text +KL divergence 0\.[0-9]+ \+- .* \(127 predictions of what the model itself writes, not seen by calibration\)$'
# the default code, embedding and head
grep -q '"code": "trellis"' written/config.json && grep -q '"embedding_bits": 4' written/config.json && grep -q '"head_bits": 4' written/config.json ||
  die "the default is not what it is said to be: $(grep -E '"(code|embedding_bits|head_bits)"' written/config.json)"
! grep -qE '"(code|embedding_bits)"' vq-2/config.json || die "a folder of vectors says more than before"
! grep -q '^loss on the text' "$capture/out" || die "a loss on a text that was not given"
# a name that is not UTF-8
latin=$(printf 'caf\351.txt')
cp "$SOURCE/examples/text/calib.txt" "$latin"
expect_ok "$GPTVQ" quantize "$model" -o latin --calib "$latin" --calib-samples 2 --calib-length 32 --em-iterations 1 --reassign-rounds 0 --judge-tokens 0 --calib-self 0 --quiet
grep -q '"source": "caf?.txt"' latin/config.json || die "the name of the text: $(grep '"source"' latin/config.json)"
quantize unjudged --dim 2 --bits 3.125 --judge-tokens 0 --calib-self 0
[ "$(grep -c '"loss_[a-z]*": null' "$capture/out")" = 2 ] || die "a loss that was not asked for"
awk -v s="$(stage_seconds 'losses at the end')" 'BEGIN {exit !(s != "" && s < 0.001)}' || die "time for losses that were not asked for"
grep -q '"source": "calib.txt"' unjudged/config.json || die "the model wrote, unasked"

# the precision of the calibration
quantize rounded --dim 2 --bits 2.25 --calib-compute auto
near "$(json bits_per_value)" 2.2144 0.001
case " $(sed -n '/^flags/{p;q}' /proc/cpuinfo) " in *" avx512_bf16 "*) rounds=bf16 ;; *) rounds=fp32 ;; esac
[ "$(json calib_compute)" = "$rounds" ] || die "auto ran in $(json calib_compute) where it should be $rounds"
same=0 # as in fp32
cmp -s rounded/model-00001-of-00005.safetensors stages/model-00001-of-00005.safetensors && same=1
[ "$rounds $same" = "bf16 0" ] || [ "$rounds $same" = "fp32 1" ] || die "auto says $rounds: are the bytes those of fp32? $same"
expect_fail 5 'calib-compute bf16 needs a processor with AVX512-BF16, or --device cuda: choose auto or fp32' \
  "$GPTVQ" quantize "$model" -o refused --calib self --calib-compute bf16 --cpu avx2
expect_fail 5 'calib-compute bf16 needs a processor with AVX512-BF16, or --device cuda: choose auto or fp32' \
  "$GPTVQ" quantize "$model" --dry-run --calib self --calib-compute bf16 --cpu avx2
quantize stages-avx2 --dim 2 --bits 2.25 --cpu avx2
quantize stages-avx2-fp32 --dim 2 --bits 2.25 --calib-compute fp32 --cpu avx2
cmp stages-avx2/model-00001-of-00005.safetensors stages-avx2-fp32/model-00001-of-00005.safetensors || die "auto is not fp32 without bf16 instructions"

# the same bytes with two threads; another seed is another result
quantize vq-2-b --dim 2 --bits 2.25 --threads 2
for file in $(lasting vq-2); do
  cmp "$file" "vq-2-b/$(basename "$file")" || die "$file depends on the number of threads"
done
quantize vq-2-b --dim 2 --bits 2.25 --seed 5 --force
! cmp -s vq-2/model-00001-of-00005.safetensors vq-2-b/model-00001-of-00005.safetensors || die "the seed changes nothing"

# generation from packed weights, and export: plain bf16 weights of the same model
expect_ok "$GPTVQ" generate vq-2 -p 'Once upon a time' -n 16 --temp 0 --json
[ "$(json tokens)" = 16 ] || die "no text from packed weights"
expect_ok "$GPTVQ" export vq-2 -o plain --format hf
expect_ok "$GPTVQ" inspect plain --json
[ "$(json packed) $(json bits_per_value) $(json verified)" = "false 16.0 true" ] || die "the export is not a plain bf16 folder"
expect_ok "$GPTVQ" compare vq-2 plain --text "$text" --ctx 256 --max-windows 4 --json --quiet
near "$(json perplexity_b)" "$vq_2" 1e-3 # centroids times scales, rounded to bf16
awk -v kl="$(json kl_mean)" 'BEGIN {exit !(kl < 1e-3)}' || die "the export differs: KL $(json kl_mean)"
expect_fail 3 'plain.*exists.*--force' "$GPTVQ" export vq-2 -o plain
expect_ok "$GPTVQ" export vq-2 -o plain --force --quiet

# what a person sees
expect_ok "$GPTVQ" quantize "$model" -o words --method rtn --bits 3.125
expect_out '^bits per value +3\.[0-9]{4} in 3145728 weights of 28 linear layers'
expect_out '^whole model +7\.34 MB -> '
expect_out "^peak memory +[0-9.]+ [MG]B \\(estimated [0-9.]+ [MG]B\\)\$"
expect_err '^quantize [0-9]+/[0-9]+: model\.layers\.3\.mlp\.down_proj, error 0\.[0-9]+'
