# Model folders as people have them: which files count, what is said about the others.
. "$SOURCE/tests/cli/lib.sh"

warned() { # PATTERN: exactly one warning, and it matches
  [ "$(grep -c '^gptvq: warning: ' "$capture/err")" = 1 ] || die "expected one warning"
  expect_err "^gptvq: warning: .*$1"
}
quiet() { ! grep -q 'warning' "$capture/err" || die "an unexpected warning"; }
sharded() { # a writable copy of the sharded model
  rm -rf m && cp -r "$SOURCE/tests/golden/model/llama-sharded" m && chmod -R u+w m
}
without_weights() { # FILE…: a folder that holds config.json and these instead of weights
  rm -rf m && mkdir m && cp "$model/config.json" m
  for name; do : > "m/$name"; done
}
index=m/model.safetensors.index.json

# a single file counts whatever an index beside it says
expect_ok "$GPTVQ" eval "$model" --text "$text" --ctx 256 --max-windows 2 --json
quiet
nll=$(json nll)
copy_model m
printf '{"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}' > $index
expect_ok "$GPTVQ" eval m --text "$text" --ctx 256 --max-windows 2 --json
[ "$(json nll)" = "$nll" ] || die "another model was read"
warned 'm/model\.safetensors is used, not model\.safetensors\.index\.json .* lists the file model-00001-of-00002\.safetensors'
cp "$SOURCE"/tests/golden/model/llama-sharded/* m/ && cp "$model/config.json" m/ # with the shards themselves
expect_ok "$GPTVQ" inspect m --json
warned 'lists the file model-0000.-of-00003\.safetensors'
[ "$(json verified)" = true ] || die "inspect weighed other files than the model's"
printf '{"weight_map": {"lm_head.weight": "model.safetensors", "extra": "model.safetensors"}}' > $index
expect_ok "$GPTVQ" inspect m
warned 'lists what the file lacks, extra'
printf '{"weight_map": {"lm_head.weight": "model.safetensors"}}' > $index
expect_ok "$GPTVQ" generate m -p 'Once' -n 1
warned 'does not list model\.'
printf '{"metadata": {}}' > $index
expect_ok "$GPTVQ" inspect m
warned 'has no weight_map'
printf '{' > $index
expect_ok "$GPTVQ" inspect m
warned 'm/model\.safetensors is used: m/model\.safetensors\.index\.json is not valid JSON'
expect_ok "$GPTVQ" quantize m -o q --method rtn --bits 4.25
warned 'm/model\.safetensors is used'
printf '{"weight_map": {' > $index
head -c "$((8 + $(od -An -t u8 -N 8 m/model.safetensors)))" m/model.safetensors | tail -c +9 | grep -ao '"[a-z_.0-9]*":{"dtype' |
  sed 's/:{"dtype/: "model.safetensors",/' >> $index
edit $index '$ s/,$/}}/'
expect_ok "$GPTVQ" inspect m
quiet
# a packed folder goes by its index
cp "$model/model.safetensors" q/
expect_ok "$GPTVQ" inspect q --json
warned 'q is a packed model: what model\.safetensors\.index\.json lists is used, not model\.safetensors'
[ "$(json verified)" = true ] || die "inspect weighed other files than the packed model's"

# an adapter beside the model is not applied
rm $index && printf '{}' > m/adapter_config.json
expect_ok "$GPTVQ" inspect m
warned 'adapter_config\.json.*not applied'

# shards
sharded
expect_ok "$GPTVQ" inspect m
quiet
rm m/model-00002-of-00003.safetensors
expect_fail 3 'index\.json lists model-00002-of-00003\.safetensors, which is not there \(2 of 3 files are\): download it$' "$GPTVQ" inspect m
rm m/model-*
expect_fail 3 'lists model-0000.-of-00003\.safetensors, which is not there \(0 of 3 files are\): download what is missing$' "$GPTVQ" inspect m
touch m/model-00001-of-00002.safetensors
expect_fail 3 '0 of 3 files are.*it holds model-00001-of-00002\.safetensors: the index is of other files' "$GPTVQ" inspect m
sharded
rm $index
expect_fail 3 'neither model\.safetensors nor .*it holds model-00001-of-00003\.safetensors, model-00002-of-00003\.safetensors and 1 more: download model\.safetensors\.index\.json' \
  "$GPTVQ" inspect m
rm m/config.json
expect_fail 3 'no config\.json.*it holds model-00001-of-00003.*: download config\.json' "$GPTVQ" inspect m

# what is there instead
lacks='m holds neither model\.safetensors nor model\.safetensors\.index\.json'
without_weights
expect_fail 3 "$lacks\$" "$GPTVQ" inspect m
without_weights pytorch_model.bin
expect_fail 3 "$lacks; it holds pytorch_model\.bin: .*convert the model to safetensors" "$GPTVQ" inspect m
without_weights pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin pytorch_model.bin.index.json training_args.bin
expect_fail 3 "$lacks; it holds pytorch_model-00001-of-00002\.bin, pytorch_model-00002-of-00002\.bin: .*convert" "$GPTVQ" inspect m
without_weights model-q4_k_m.gguf
expect_fail 3 "$lacks; it holds model-q4_k_m\.gguf: give the GGUF file itself" "$GPTVQ" inspect m
without_weights consolidated.safetensors params.json
expect_fail 3 "$lacks; it holds consolidated\.safetensors, params\.json: .*Hugging Face" "$GPTVQ" inspect m
without_weights model.fp16.safetensors
expect_fail 3 "$lacks; it holds model\.fp16\.safetensors: call it model\.safetensors" "$GPTVQ" inspect m
without_weights adapter_model.safetensors adapter_config.json
expect_fail 3 "$lacks; it holds adapter_config\.json, adapter_model\.safetensors: an adapter.*merge" "$GPTVQ" inspect m
rm m/config.json
expect_fail 3 'm holds no config\.json.*adapter_model\.safetensors: an adapter.*merge' "$GPTVQ" inspect m
rm m/* && mkdir m/blobs m/refs m/snapshots
expect_fail 3 'm holds no config\.json.*snapshots' "$GPTVQ" inspect m

# what Git and the hub's cache leave in the place of a file
pointer='version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7348816\n'
rm -rf m && copy_model m && printf "$pointer" > m/model.safetensors
expect_fail 4 'm/model\.safetensors is a Git LFS pointer.*git lfs pull' "$GPTVQ" inspect m
rm -rf m && copy_model m && printf "$pointer" > m/tokenizer.json
expect_fail 4 'm/tokenizer\.json is a Git LFS pointer' "$GPTVQ" tokenize m --text "$text"
rm -rf m && copy_model m && rm m/model.safetensors && ln -s ../../blobs/0123 m/model.safetensors
expect_fail 3 'm/model\.safetensors: it is a link to a file that does not exist' "$GPTVQ" inspect m

# a tokenizer in another form
rm -rf m && copy_model m && rm m/tokenizer.json
expect_fail 3 'no tokenizer\.json in this folder: download' "$GPTVQ" tokenize m --text "$text"
touch m/vocab.json m/merges.txt
expect_fail 3 'no tokenizer\.json in this folder; vocab\.json is not read: convert it' "$GPTVQ" tokenize m --text "$text"
touch m/tokenizer.model
expect_fail 3 'tokenizer\.model is not read: convert it' "$GPTVQ" tokenize m --text "$text"

# any number of tokens that end a text
rm -rf m && copy_model m
expect_ok "$GPTVQ" generate "$model" -p 'Once upon a time' -n 400 --seed 3 --json
[ "$(json stop)" = eos ] || die "the story should end"
number=$(json tokens)
edit m/generation_config.json 's/"eos_token_id": 1/"eos_token_id": [2001,2002,2003,2004,2005,2006,2007,2008,2009,2010,2011,1]/'
edit m/config.json 's/"eos_token_id": 1/"eos_token_id": 2000/'
printf '{}' > m/tokenizer_config.json
expect_ok "$GPTVQ" generate m -p 'Once upon a time' -n 400 --seed 3 --json
[ "$(json stop)" = eos ] && [ "$(json tokens)" = "$number" ] || die "a text goes on after its twelfth end token"
