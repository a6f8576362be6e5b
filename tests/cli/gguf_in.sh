# GGUF files as originals: the way back of what export writes, other programs' files, and damaged ones.
. "$SOURCE/tests/cli/lib.sh"
golden=$SOURCE/tests/golden

# what export writes without loss is quantized to the same bytes as its folder, permuted heads, fused and expert matrices and norms included
# (golden models of F32 numbers, or of several types, lose something in bf16)
for name in llama llama3-rope mistral mixtral qwen2-yarn qwen3 phi3-longrope phi4-mini granite-biases olmo2 gemma2; do
  folder=$golden/model/$name
  if [ $name = gemma2 ]; then # as llama.cpp has it built in
    cp -r "$folder" odd
    chmod -R u+w odd
    edit odd/config.json 's/"query_pre_attn_scalar": 24/"query_pre_attn_scalar": 16/'
    folder=odd
  fi
  expect_ok "$GPTVQ" export "$folder" -o back.gguf --format gguf --type bf16 --quiet --force
  expect_ok "$GPTVQ" quantize "$folder" -o a --method rtn --bits 3.125 --quiet --force
  expect_ok "$GPTVQ" quantize back.gguf -o b --method rtn --bits 3.125 --quiet --force
  for shard in a/*.safetensors; do
    cmp -s "$shard" "b/${shard#a/}" || die "$name: $shard is another one from the GGUF file"
  done
  expect_ok "$GPTVQ" export back.gguf -o folder --format hf --quiet --force
  expect_ok "$GPTVQ" export folder -o again.gguf --format gguf --type bf16 --quiet --force
  [ "$(tail -c 4000 again.gguf | cksum)" = "$(tail -c 4000 back.gguf | cksum)" ] || die "$name: export --format hf changes values"
done
expect_ok "$GPTVQ" export "$model" -o one.gguf --format gguf --type f16 --quiet
expect_ok "$GPTVQ" export one.gguf -o two --format hf --quiet
expect_ok "$GPTVQ" export two -o two.gguf --format gguf --type f16 --quiet
[ "$(tail -c 6000000 one.gguf | cksum)" = "$(tail -c 6000000 two.gguf | cksum)" ] || die "f16: the way back changes values"

# its tokenizer, settings and chat template come along
expect_ok "$GPTVQ" tokenize "$model" --text "$text"
cp "$capture/out" ids
expect_ok "$GPTVQ" tokenize one.gguf --text "$text"
cmp -s "$capture/out" ids || die "the file's tokenizer gives other ids"
expect_ok "$GPTVQ" generate "$model" -p 'Once upon' -n 12 --temp 0 --quiet --compute fp32
cp "$capture/out" story
expect_ok "$GPTVQ" export "$model" -o one.gguf --format gguf --type bf16 --quiet --force
expect_ok "$GPTVQ" generate one.gguf -p 'Once upon' -n 12 --temp 0 --quiet --compute fp32
cmp -s "$capture/out" story || die "the file tells another story"
head -c 4000 "$text" > short.txt
expect_ok "$GPTVQ" quantize one.gguf -o packed --recipe paper --calib short.txt --calib-samples 1 --calib-length 64 --em-iterations 2 --quiet
expect_ok "$GPTVQ" quantize "$model" -o other --recipe paper --calib short.txt --calib-samples 1 --calib-length 64 --em-iterations 2 --quiet
for shard in packed/*.safetensors; do cmp -s "$shard" "other/${shard#packed/}" || die "$shard differs"; done
expect_ok "$GPTVQ" tokenize packed --text "$text"
cmp -s "$capture/out" ids || die "the packed folder has another tokenizer"
expect_ok "$GPTVQ" eval one.gguf --text short.txt --ctx 128 --quiet
expect_ok "$GPTVQ" compare one.gguf packed --text short.txt --ctx 128 --quiet

# files of the gguf package
printf 'banana ban \303\244' > words
expect_ok "$GPTVQ" tokenize "$golden/gguf/spm.gguf" --text words
[ "$(cat "$capture/out")" = '1 268 267 268 271' ] || die "SentencePiece: $(cat "$capture/out")"
expect_ok "$GPTVQ" tokenize "$golden/gguf/bpe.gguf" --text words
[ "$(cat "$capture/out")" = '98 256 258 257 256 32 195 164' ] || die "BPE: $(cat "$capture/out")"
expect_ok "$GPTVQ" inspect "$golden/gguf/spm.gguf"
for type in Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 fp16 fp32; do expect_out " $type +-"; done
expect_ok "$GPTVQ" chat "$golden/gguf/spm.gguf" -p hello -n 2 --temp 0 --quiet
expect_fail 5 'bpe.gguf: this model has no chat template' "$GPTVQ" chat "$golden/gguf/bpe.gguf" -p hello

# damaged ones. byte_of FILE TEXT: where TEXT begins; after KEY: where its value begins (behind the u32 of its type)
byte_of() { LC_ALL=C grep -abo -- "$2" "$1" | head -n 1 | cut -d: -f1; }
bad() { # CODE PATTERN
  expect_fail "$1" "$2" "$GPTVQ" inspect m.gguf
  expect_fail "$1" "$2" "$GPTVQ" quantize m.gguf -o out --method rtn
}
fresh() { cat "$golden/gguf/$1.gguf" > m.gguf; }
size=$(wc -c < "$golden/gguf/spm.gguf")
for keep in 4 7 15 23 40 100 3000 9000 11000 12000 $((size - 1000)); do
  head -c "$keep" "$golden/gguf/spm.gguf" > m.gguf
  bad 4 'm\.gguf is truncated'
done
printf 'GGU' > m.gguf && bad 3 'm\.gguf is neither a folder nor a GGUF file|m\.gguf is not a model folder'
fresh spm && poke m.gguf 4 '\001' && bad 5 'm\.gguf is of GGUF version 1'
fresh spm && poke m.gguf 4 '\000\000\000\003' && bad 5 'big-endian'
fresh spm && poke m.gguf 8 '\377\377\377\377' && bad 4 'tensors and'
fresh spm && poke m.gguf 15 '\200' && bad 4 'tensors and'
fresh spm && poke m.gguf 16 '\001' && bad 4 'm\.gguf'
fresh spm && poke m.gguf 24 '\377\377\377\377\377\377\377\177' && bad 4 'm\.gguf is truncated or damaged: a key'
fresh spm && poke m.gguf 24 '\000' && bad 4 'a name of 0 bytes'
fresh spm && poke m.gguf $(($(byte_of m.gguf general.architecture) + 32)) 'bert!' && bad 5 'architecture bert! is not read'
fresh spm && poke m.gguf $(($(byte_of m.gguf llama.block_count) + 17)) '\006' && bad 4 'key llama.block_count is not a whole number'
fresh spm && poke m.gguf $(($(byte_of m.gguf llama.block_count) + 17)) '\077' && bad 4 'key llama.block_count is of type 63'
fresh spm && poke m.gguf $(($(byte_of m.gguf llama.block_count) + 21)) '\000' && bad 4 'key llama.block_count is missing'
fresh spm && poke m.gguf $(($(byte_of m.gguf llama.block_count) + 21)) '\002' && bad 4 'only 11 tensors'
fresh spm && poke m.gguf $(($(byte_of m.gguf llama.block_count) + 21)) '\377\377\377\077' && bad 4 'm\.gguf'
fresh spm && poke m.gguf $(($(byte_of m.gguf llama.embedding_length) + 26)) '\100' && bad 4 'has shape 273 x 32, config.json implies 273 x 64'
fresh spm && poke m.gguf $(($(byte_of m.gguf llama.attention.head_count) + 30)) '\003' && bad 4 'm\.gguf'
fresh spm && poke m.gguf "$(byte_of m.gguf tokenizer.ggml.bos_token_id)" 'tokenizer.ggml.eos_token_id' && bad 4 'eos_token_id is there twice'
# tensors: name, rank, two dimensions, type, offset
at=$(($(byte_of m.gguf blk.0.attn_k.weight) + 19))
fresh spm && poke m.gguf $at '\000' && bad 4 'attn_k.weight has 0 dimensions'
fresh spm && poke m.gguf $at '\005' && bad 4 'attn_k.weight has 5 dimensions'
fresh spm && poke m.gguf $((at + 4)) '\000' && bad 4 'dimension 0 is zero'
fresh spm && poke m.gguf $((at + 4)) '\000\000\000\000\000\000\000\020' && bad 4 'overflows'
fresh spm && poke m.gguf $((at + 4)) '\041' && bad 4 'rows of 33 values, which are no whole blocks of 32'
fresh spm && poke m.gguf $((at + 20)) '\020' && bad 5 'attn_k.weight is of type IQ2_XXS'
fresh spm && poke m.gguf $((at + 20)) '\377' && bad 5 'attn_k.weight is of type unknown'
fresh spm && poke m.gguf $((at + 24)) '\001' && bad 4 'attn_k.weight begins at byte'
fresh spm && poke m.gguf $((at - 19)) 'blk.0.attn_v.weight' && bad 4 'attn|self_attn'
fresh spm && poke m.gguf $((at - 19)) 'blk.0.attn_x.weight' && bad 4 'blk.0.attn_x.weight|k_proj.weight is missing'
# a vector in blocks where queries are put in order (the norm's F32[32] as Q8_0[96]: as many bytes, padded)
at=$(($(byte_of m.gguf blk.0.attn_norm.weight) + 22))
fresh spm && poke m.gguf $((at - 22)) 'blk.0.attn_q.weightxyz' && poke m.gguf $((at + 4)) '\140' && poke m.gguf $((at + 12)) '\010' &&
  bad 4 'attn_q.weightxyz is a vector of type Q8_0'
# a scale of infinity
fresh spm && poke m.gguf $((size - 8192 - 4096 - 2176 - 768 - 704 - 640)) '\000\174'
expect_fail 6 'proj.weight holds NaN or infinity' "$GPTVQ" quantize m.gguf -o out --method rtn --quiet
# its tokenizer alone
tokens() { expect_fail "$1" "$2" "$GPTVQ" tokenize m.gguf --text words; }
fresh spm && poke m.gguf $(($(byte_of m.gguf tokenizer.ggml.model) + 32)) 'rwkv!' && tokens 5 'tokenizer "rwkv!" is not read'
fresh bpe && poke m.gguf $(($(byte_of m.gguf tokenizer.ggml.pre) + 30)) 'other' && tokens 5 'tokenizer.ggml.pre "other" is not read'
fresh bpe && poke m.gguf "$(byte_of m.gguf 'a n')" 'a-n' && tokens 4 'tokenizer.ggml.merges: item 0 is not two texts'
fresh bpe && poke m.gguf "$(byte_of m.gguf 'a n')" 'a z' && tokens 4 'merge 1 .*"az"'
fresh bpe && poke m.gguf "$(byte_of m.gguf 'a n')" '\377 n' && tokens 4 'm\.gguf/tokenizer.json: not valid JSON'
fresh spm && poke m.gguf $(($(byte_of m.gguf tokenizer.ggml.scores) + 25)) '\005' && tokens 4 'tokenizer.ggml.scores is not an array'
fresh spm && poke m.gguf "$(byte_of m.gguf tokenizer.ggml.tokens)" 'tokenizer.ggml.tokenz' && tokens 4 'tokenizer.ggml.tokens is missing'
for bits in '\000\000\300\177' '\000\000\200\377'; do
  fresh spm && poke m.gguf $(($(byte_of m.gguf tokenizer.ggml.scores) + 37)) "$bits" && tokens 4 'score of token 0 is NaN or infinity'
done
# no first token: -1, signed
fresh spm && poke m.gguf $(($(byte_of m.gguf tokenizer.ggml.bos_token_id) + 27)) '\005\000\000\000\377\377\377\377'
expect_ok "$GPTVQ" tokenize m.gguf --text words
[ "$(cat "$capture/out")" = '268 267 268 271' ] || die "a first token of -1: $(cat "$capture/out")"
mkfifo pipe.gguf && expect_fail 3 'pipe.gguf' "$GPTVQ" inspect pipe.gguf
# a folder with nothing but a GGUF file says what to do
mkdir hub && fresh spm && mv m.gguf hub/ && expect_fail 3 'it holds m.gguf: give the GGUF file itself' "$GPTVQ" inspect hub
