# The trellis code (--code trellis): bad options, the packed folder through the commands, resume, damaged files.
. "$SOURCE/tests/cli/lib.sh"

expect_fail 2 '--bits 1.5 is not possible with --code trellis; the nearest possible size is 2.031' \
  "$GPTVQ" quantize "$model" -o x --code trellis --bits 1.5
expect_fail 2 '--code trellis is not possible with uniform methods' "$GPTVQ" quantize "$model" -o x --code trellis --method rtn
for option in "--finetune-index-rate 0.001" "--svd-rank 2" "--scale-block 64"; do
  # shellcheck disable=SC2086
  expect_fail 2 "${option%% *} .*is not possible with --code trellis: leave it out" \
    "$GPTVQ" quantize "$model" -o x --code trellis --bits 2.25 $option
done
expect_fail 2 '--bits 2.5 is not possible with --index-bits 3: leave one of them out' \
  "$GPTVQ" quantize "$model" -o x --code trellis --bits 2.5 --index-bits 3
expect_fail 2 '--bits 2 is less than the layers of this model can have with --code trellis: the smallest is 2\.0344$' \
  "$GPTVQ" quantize "$model" -o x --bits 2 --quiet
[ ! -e x ] && [ ! -e x.partial ] || die "something is left"
expect_ok "$GPTVQ" quantize "$model" --bits 3 --dry-run # layers of 2 to 4 bits
expect_out 'sizes +trellis, at most 3\.0000 bits per weight'
expect_ok "$GPTVQ" quantize "$model" --code trellis --index-bits 3 --dry-run
expect_out 'sizes +trellis, 3\.0344 bits per weight'

options="--code trellis --bits 2.04 --calib $SOURCE/examples/text/calib.txt --calib-samples 2 --calib-length 128 --em-iterations 3 --reassign-rounds 1 --beam 1 --judge-tokens 0 --calib-self 0 --quiet"
# shellcheck disable=SC2086
expect_ok "$GPTVQ" quantize "$model" -o small $options --threads 1 --json
bits=$(json bits_per_value)
# 2 bits, 8 per row and group of 256, and 8 · 32 + 16 for the tables of each of a layer's 1 or 3 groups
near "$bits" "$(awk 'BEGIN {printf "%.9f", 2.03125 + 36 * 272 / 3145728}')" 1e-9
expect_ok "$GPTVQ" inspect small
expect_out 'q_proj +256 x 256 +gptvq trellis 2-bit +- +- +2\.0354 '
expect_ok "$GPTVQ" inspect small --json
[ "$(json verified)" = true ] || die "inspect does not know the trellis"
grep -q '"version": 3' small/config.json || die "a trellis is not written as format version 3"
# shellcheck disable=SC2086
expect_ok "$GPTVQ" quantize "$model" -o again $options --threads 3
cmp small/model-00001-of-00005.safetensors again/model-00001-of-00005.safetensors || die "other bytes from three threads"

expect_ok "$GPTVQ" compare "$model" small --text "$text" --ctx 128 --max-windows 4 --json --quiet
perplexity=$(json perplexity_b)
awk -v a="$(json perplexity_a)" -v b="$perplexity" 'BEGIN {exit !(b > 0.97 * a && b < 1.4 * a)}' || die "perplexity $perplexity"
expect_ok "$GPTVQ" eval small --text "$text" --ctx 128 --max-windows 4 --json --quiet --compute fp32
near "$(json perplexity)" "$perplexity" 5e-3
expect_ok "$GPTVQ" export small -o exported --format hf
expect_ok "$GPTVQ" eval exported --text "$text" --ctx 128 --max-windows 4 --json --quiet
near "$(json perplexity)" "$perplexity" 5e-3

# layers of several sizes, tuned; the same bytes from three threads
mixed="$options --allocate sensitivity --bits 2.5 --finetune-block-steps 2 --finetune-steps 2 --finetune-batch 1"
# shellcheck disable=SC2086
expect_ok "$GPTVQ" quantize "$model" -o mixed $mixed --threads 1 --json
awk -v b="$(json bits_per_value)" 'BEGIN {exit !(b > 2.4 && b <= 2.5)}' || die "bits $(json bits_per_value)"
# shellcheck disable=SC2086
expect_ok "$GPTVQ" quantize "$model" -o mixed-3 $mixed --threads 3
cmp mixed/model-00001-of-00005.safetensors mixed-3/model-00001-of-00005.safetensors || die "other bytes from three threads"

shard=m/model-00001-of-00005.safetensors
bad() { expect_fail "$1" "$2" "$GPTVQ" inspect m; rm -r m; }
cp -r small m && edit $shard 's/index_bits\\":2/index_bits\\":3/' && bad 4 'indices has shape'
cp -r small m && edit $shard 's/index_bits\\":2/index_bits\\":5/' && bad 4 'trellis of 5 bits per weight'
cp -r small m && edit $shard 's/version\\":3/version\\":2/' && bad 4 'is not one of version 2'
