# Codebooks as int8 factors (--svd-rank): bad options, the packed folder through every command, resume, damaged factors.
. "$SOURCE/tests/cli/lib.sh"

expect_fail 2 "option --svd-rank: 257 is out of range, 1 to 256" "$GPTVQ" quantize "$model" -o x --dim 1 --bits 2.125 --svd-rank 257
expect_fail 2 'option --svd-rank: -1 is out of range' "$GPTVQ" quantize "$model" -o x --dim 1 --bits 2.125 --svd-rank -1
expect_fail 2 "option --svd-rank: 'two' is not a number" "$GPTVQ" quantize "$model" -o x --dim 1 --bits 2.125 --svd-rank two
expect_fail 2 '--svd-rank 4 is not possible with --dim 2' "$GPTVQ" quantize "$model" -o x --svd-rank 4
expect_fail 2 '--svd-rank 5 is not possible with 4 centroids' "$GPTVQ" quantize "$model" -o x --dim 1 --bits 2.125 --svd-rank 5
expect_fail 2 '--svd-rank 2 is not possible with --dim 2' "$GPTVQ" quantize "$model" -o x --dim 2 --bits 2.125 --svd-rank 2
expect_fail 2 '--svd-rank 2 is not possible with 512 centroids: .* at most 256' \
  "$GPTVQ" quantize "$model" -o x --dim 1 --index-bits 9 --group-size 65536 --svd-rank 2
for method in rtn gptq; do
  expect_fail 2 '--svd-rank 2 is not possible: uniform methods have no codebooks' \
    "$GPTVQ" quantize "$model" -o x --method $method --bits 2.125 --svd-rank 2
done
for option in --finetune-steps --finetune-block-steps; do
  expect_fail 2 '--svd-rank 2 is not possible with fine-tuning' "$GPTVQ" quantize "$model" -o x --dim 1 --bits 2.125 --svd-rank 2 $option 5
done

options="--nominal --dim 1 --calib $SOURCE/examples/text/calib.txt --calib-samples 2 --calib-length 128 --em-iterations 3 --reassign-rounds 1 --beam 1 --quiet"
# shellcheck disable=SC2086
expect_ok "$GPTVQ" quantize "$model" -o small $options --bits 2.125 --svd-rank 2 --threads 1 --json
bits=$(json bits_per_value) error=$(json mean_error)
# 2 bits, 16 bits per 128 values, and 4 · 2 · 8 + 2 · 32 bits a layer
near "$bits" "$(awk 'BEGIN {printf "%.9f", 2.125 + 28 * 128 / 3145728}')" 1e-9
expect_ok "$GPTVQ" inspect small
expect_out 'q_proj +256 x 256 +gptvq vq d=1 k=4 c8 r2 +1 x 128 +- +2\.1270 '
expect_ok "$GPTVQ" inspect small --json
[ "$(json verified) $(json svd_rank)" = "true 2" ] || die "inspect does not know the factors"
near "$(json bits_per_value)" "$bits" 1e-9
near "$(json mean_error)" "$error" 1e-6
grep -q '"version": 2' small/config.json || die "factored codebooks are written as format version 1"
expect_ok "$GPTVQ" compare "$model" small --text "$text" --ctx 256 --max-windows 4 --json --quiet
perplexity=$(json perplexity_b)
awk -v a="$(json perplexity_a)" -v b="$perplexity" 'BEGIN {exit !(b > 0.97 * a && b < 1.4 * a)}' || die "perplexity $perplexity"
expect_ok "$GPTVQ" eval small --text "$text" --ctx 256 --max-windows 4 --json --quiet --compute int8
near "$(json perplexity)" "$perplexity" 5e-3
for level in ref auto; do # codebooks are multiplied out to the same bits everywhere
  expect_ok "$GPTVQ" eval small --text "$text" --ctx 64 --max-windows 1 --json --quiet --cpu $level
  [ "$level" = auto ] || perplexity_64=$(json perplexity)
done
near "$(json perplexity)" "$perplexity_64" 1e-5
expect_ok "$GPTVQ" generate small -p 'Once upon a time' -n 16 --temp 0 --json
[ "$(json tokens)" = 16 ] || die "no text from factored codebooks"
expect_ok "$GPTVQ" export small -o plain --format hf
expect_ok "$GPTVQ" eval plain --text "$text" --ctx 256 --max-windows 4 --json --quiet
near "$(json perplexity)" "$perplexity" 1e-3

# two threads, a kill and --resume: the same bytes; another rank is another run
# shellcheck disable=SC2086
"$GPTVQ" quantize "$model" -o again $options --bits 2.125 --svd-rank 2 --threads 2 > "$capture/out" 2> "$capture/err" &
pid=$!
tries=0
while [ "$(find again.partial -name '*.safetensors' 2> /dev/null | wc -l)" = 0 ] && kill -0 $pid 2> /dev/null; do
  tries=$((tries + 1))
  [ $tries -lt 600 ] || die "no block was finished in a minute"
  sleep 0.1
done
kill -KILL $pid 2> /dev/null || true
wait $pid || true
if [ -e again.partial ]; then
  # shellcheck disable=SC2086
  run "$GPTVQ" quantize "$model" -o again $options --index-bits 2 --group-size 128 --svd-rank 1 --resume
  [ "$code" = 2 ] || die "resumed with another rank"
  expect_err '--svd-rank was 2, is now 1'
  # shellcheck disable=SC2086
  run "$GPTVQ" quantize "$model" -o again $options --index-bits 2 --group-size 256 --resume
  [ "$code" = 2 ] || die "resumed without factors"
  expect_err '--svd-rank was 2, is now absent'
  # shellcheck disable=SC2086
  expect_ok "$GPTVQ" quantize "$model" -o again $options --bits 2.125 --svd-rank 2 --threads 2 --resume
fi
for file in $(lasting small); do
  cmp "$file" "again/$(basename "$file")" || die "$file depends on threads or resuming"
done

# the other ways to make them
# shellcheck disable=SC2086
expect_ok "$GPTVQ" quantize "$model" -o other --method kmeans --nominal --dim 1 --bits 3.125 --svd-rank 3 --em-iterations 3 --quiet --json
near "$(json bits_per_value)" 3.104 1e-3 # 192 values are two rows of 128
# shellcheck disable=SC2086
expect_ok "$GPTVQ" quantize "$model" -o other --force $options --bits 2.1875 --svd-rank 1 --codebook-bits 16 --scale-block 64 --json
expect_ok "$GPTVQ" inspect other --json
[ "$(json verified) $(json svd_rank) $(json codebook_bits) $(json scale_block)" = "true 1 16 64" ] || die "fp16 and block scales"
# shellcheck disable=SC2086
expect_ok "$GPTVQ" quantize "$model" -o other --force $options --bits 2.125 --svd-rank 2 --allocate sensitivity --json
awk -v b="$(json bits_per_value)" -v m="$bits" 'BEGIN {exit !(b <= m && b > 2.1)}' || die "allocation takes $(json bits_per_value) bits"
rm -rf other

# damaged: one clear line
bad() { # CODE PATTERN
  expect_fail "$1" "$2" "$GPTVQ" inspect m
  expect_fail "$1" "$2" "$GPTVQ" generate m -p x -n 1
  rm -rf m
}
shard=m/model-00001-of-00005.safetensors
size=$(wc -c < small/model-00001-of-00005.safetensors)
cp -r small m && head -c $((size - 100)) small/model-00001-of-00005.safetensors > $shard && bad 4 'model-00001-of-00005'
cp -r small m && edit $shard 's/svd_rank\\":2/svd_rank\\":3/' && bad 4 'codebook_(left|right|factor_scales) has shape'
cp -r small m && edit $shard 's/svd_rank\\":2/svd_rank\\":9/' && bad 4 'rank 9 are not possible'
cp -r small m && edit $shard 's/version\\":2/version\\":1/' && bad 5 'svd_rank'
cp -r small m && edit $shard 's/version\\":2/version\\":7/' && bad 5 'version 7 is not supported'
cp -r small m && edit m/config.json 's/"version": 2/"version": 9/' && bad 5 'version 9 is not supported'
scales=$(data_offset small/model-00001-of-00005.safetensors 'model\.layers\.0\.mlp\.up_proj\.codebook_factor_scales')
cp -r small m && poke $shard "$scales" '\000\000\300\177' && bad 6 'up_proj.codebook_factor_scales holds NaN'
cp -r small m && poke $shard "$scales" '\000\000\000\176' && bad 6 'up_proj.codebook_factor_scales gives centroids beyond'
