# export --format gguf: the files that llama.cpp has read (tests/golden/gguf/check.py), types, and what is refused.
. "$SOURCE/tests/cli/lib.sh"

while read -r sum name; do
  expect_ok "$GPTVQ" export "$SOURCE/tests/golden/model/$name" -o "$name.gguf" --format gguf --type bf16 --quiet
  [ "$(sha256sum "$name.gguf" | cut -c1-32)" = "$sum" ] || die "$name.gguf is not the file that llama.cpp has read"
done < "$SOURCE/tests/golden/gguf/sums.txt"

# a packed folder: the values of its de-quantized form, but for that one's rounding to bf16
expect_ok "$GPTVQ" quantize "$model" -o small --recipe paper --calib "$SOURCE/examples/text/calib.txt" --calib-samples 1 --calib-length 64 --em-iterations 2 --quiet
expect_ok "$GPTVQ" export small -o small-bf16 --quiet
expect_ok "$GPTVQ" export small -o packed.gguf --format gguf --type bf16 --quiet
expect_ok "$GPTVQ" export small-bf16 -o plain.gguf --format gguf --type bf16 --quiet
# the names of the two folders stand in the files, with what pads them to 32 bytes
tail -c 6000000 packed.gguf > a
tail -c 6000000 plain.gguf > b
cmp a b || die "a packed folder and its de-quantized form make different files"
head -c 20000 packed.gguf | grep -aq 'tokenizer.ggml.tokens' || die "no tokenizer in the file"

# the same in 8 bits is about half as large, and rows that are no whole blocks stay in 16
expect_ok "$GPTVQ" export small -o q8.gguf --format gguf --quiet
near "$(wc -c < q8.gguf)" "$(awk -v n="$(wc -c < packed.gguf)" 'BEGIN {print n * 34 / 64}')" 0.02
expect_fail 5 'ffn_down.weight has 48 columns, Q8_0 takes multiples of 32: use --type auto or f16' \
  "$GPTVQ" export "$SOURCE/tests/golden/model/llama" -o x.gguf --format gguf --type q8_0
expect_ok "$GPTVQ" export "$SOURCE/tests/golden/model/llama" -o mixed.gguf --format gguf --quiet

expect_fail 3 'mixed.gguf exists already: --force replaces it' "$GPTVQ" export "$model" -o mixed.gguf --format gguf
expect_ok "$GPTVQ" export "$model" -o mixed.gguf --format gguf --force --quiet
cmp -s mixed.gguf q8.gguf && die "--force replaced nothing"
expect_fail 3 'small is a folder: a GGUF file has a name of its own' "$GPTVQ" export "$model" -o small --format gguf --force
expect_fail 3 'cannot create nowhere/x.gguf' "$GPTVQ" export "$model" -o nowhere/x.gguf --format gguf
expect_fail 2 '\-\-type goes with --format gguf' "$GPTVQ" export small -o x --type f16
expect_fail 3 'nothing does not exist' "$GPTVQ" export nothing -o x.gguf --format gguf
expect_fail 5 'gemma2: query_pre_attn_scalar is not head_dim' "$GPTVQ" export "$SOURCE/tests/golden/model/gemma2" -o x.gguf --format gguf
expect_fail 5 'glm4: Glm4: not for GGUF' "$GPTVQ" export "$SOURCE/tests/golden/model/glm4" -o x.gguf --format gguf
cp -r "$model" odd
sed -i 's/p{N}{1,3}/p{N}{1,2}/' odd/tokenizer.json
expect_fail 5 'odd/tokenizer.json: llama.cpp has no name for this pre_tokenizer' "$GPTVQ" export odd -o x.gguf --format gguf
sed 's/"normalizer": null/"normalizer": {"type": "Lowercase"}/' "$model/tokenizer.json" > odd/tokenizer.json
expect_fail 5 'odd/tokenizer.json: llama.cpp does nothing like this normalizer' "$GPTVQ" export odd -o x.gguf --format gguf
expect_fail 3 'model.safetensors belongs to the model that is exported' "$GPTVQ" export odd -o odd/model.safetensors --format gguf --force
expect_fail 3 'q8.gguf is the model that is exported' "$GPTVQ" export ./q8.gguf -o q8.gguf --format gguf --force
mkfifo pipe
expect_fail 3 'pipe is no regular file' "$GPTVQ" export "$model" -o pipe --format gguf --force
cp -r "$model" copy
expect_ok "$GPTVQ" export copy -o one.gguf --format gguf --quiet
expect_ok "$GPTVQ" export copy/ -o two.gguf --format gguf --quiet
cmp one.gguf two.gguf || die "the name of the model depends on how its folder is written"
