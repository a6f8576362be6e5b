# The account of a model folder equals what is on disk.
. "$SOURCE/tests/cli/lib.sh"

expect_ok "$GPTVQ" inspect "$model"
expect_out '^LlamaForCausalLM, 4 blocks, hidden 256, MLP 768, 8 heads of 32 \(4 for keys and values\), vocabulary 1024'
expect_out '^model\.layers\.3\.mlp\.down_proj +256 x 768 +bf16 .* 16\.0000 +393216 '
expect_out '^block linears +3145728 values in 6\.29 MB: 16\.0000 bits per value$'
expect_out '^family Llama, original weights$'
expect_out '^not quantized  model\.embed_tokens\.weight, 1024 x 256, 524288 bytes: rows of it are looked up; option --embedding-bits packs it$'
expect_out '^not quantized  lm_head\.weight, 1024 x 256, 524288 bytes: the output head; '
[ "$(grep -c '_proj ' "$capture/out")" = 28 ] || die "expected 28 layers"

expect_ok "$GPTVQ" inspect "$model" --json
[ "$(json verified)" = true ] || die "sums do not agree"
[ "$(json file_bytes)" = "$(wc -c < "$model/model.safetensors" | tr -d ' ')" ] || die "file size is wrong"
[ "$(($(json linear_bytes) + $(json other_bytes) + $(json header_bytes)))" = "$(json file_bytes)" ] || die "bytes do not add up"
[ "$(json linear_values)" = 3145728 ] && [ "$(json parameters)" = 3672320 ] || die "number of values is wrong"
[ "$(json family)" = Llama ] || die "another family"
[ "$(json packed)" = false ] || die "not a packed model"

expect_ok "$GPTVQ" inspect "$SOURCE/tests/golden/model/gemma3-vision"
expect_out "^left out       vision_tower\.\*, [0-9]+ tensors of [0-9]+ values, [0-9]+ bytes: makes inputs of pictures$"
expect_ok "$GPTVQ" inspect "$SOURCE/tests/golden/model/gemma3-vision" --json
[ "$(json verified)" = true ] || die "sums with a vision tower do not agree"

expect_ok "$GPTVQ" inspect "$SOURCE/tests/golden/model/qwen3_5-inner"
expect_out '^left out       mtp\.\*, 1 tensors? of 1152 values, 2304 bytes: heads that guess tokens after the next$'
expect_out '^left out       model\.visual\.\*, .*: makes inputs of pictures$'
