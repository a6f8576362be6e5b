# Texts and windows that cannot be evaluated; weights that are not numbers; standard output that is full.
. "$SOURCE/tests/cli/lib.sh"

: > empty.txt
printf 'Once upon a time' > short.txt
expect_fail 2 '--text FILE is missing' "$GPTVQ" eval "$model"
expect_fail 3 'nothing\.txt' "$GPTVQ" eval "$model" --text nothing.txt
expect_fail 3 'cannot read .*: Is a directory' "$GPTVQ" eval "$model" --text .
expect_fail 8 'empty\.txt is empty' "$GPTVQ" eval "$model" --text empty.txt
expect_fail 8 'too short: it has [0-9]+ tokens, one window has 512' "$GPTVQ" eval "$model" --text short.txt --ctx 512
expect_fail 2 'nothing to score: score_from is 511' "$GPTVQ" eval "$model" --text "$text" --ctx 512 --score-from 511
expect_fail 2 'nothing to score' "$GPTVQ" eval "$model" --text "$text" --ctx 512 --score-from 600
expect_fail 8 'too short' "$GPTVQ" compare "$model" "$model" --text short.txt --ctx 512
expect_fail 3 'nowhere' "$GPTVQ" eval nowhere --text "$text"
expect_fail 3 'nowhere' "$GPTVQ" compare "$model" nowhere --text "$text"

# texts that can be read but are hardly what was meant: a warning that names the file, also with --quiet, and a result
head -c 6000 "$text" | tr '\n' ' ' | LC_ALL=C sed 's/./&\x00/g' > wide.txt
printf 'Le gar\347on a mang\351 une p\352che. %.0s' $(seq 60) > latin.txt
printf '{"text": "Once upon a time there was a %s."}\n' $(seq 200) > lines.jsonl
printf 'the %.0s' $(seq 4000) > the.txt
head -c 6000 /dev/zero > zeros.txt
printf 'PAR1 and so on, and so forth, until it is long enough for a window of tokens %.0s' $(seq 9) > p.parquet
expect_warning() { # PATTERN COMMAND…
  pattern=$1
  shift
  expect_ok "$@"
  [ "$(grep -Ec "^gptvq: $pattern" "$capture/err")" = 1 ] || die "expected one warning that matches '$pattern': $*"
}
small="--ctx 32 --max-windows 2 --quiet --json"
quick="--recipe paper --method gptq --bits 4.125 --calib-samples 2 --calib-length 32 --quiet --force -o out"
while read -r file words; do
  # shellcheck disable=SC2086
  {
    expect_warning "warning: $file $words" "$GPTVQ" eval "$model" --text "$file" $small
    expect_warning "warning: $file $words" "$GPTVQ" compare "$model" "$model" --text "$file" $small
  }
done << 'END'
wide.txt looks like UTF-16LE, not like UTF-8 text: convert it
latin.txt is not UTF-8 .*, perhaps Latin-1: convert it
lines.jsonl looks like JSON lines
zeros.txt looks like a binary file
p.parquet looks like a Parquet file, not like UTF-8 text: export its text
END
expect_warning 'warning: the.txt repeats itself' "$GPTVQ" eval "$model" --text the.txt --ctx 512 --max-windows 2 --quiet --json
for file in wide.txt the.txt; do # by its bytes, by its tokens
  # shellcheck disable=SC2086
  expect_warning "warning: $file " "$GPTVQ" quantize "$model" --calib $file $quick
done
expect_warning 'warning: wide.txt looks like UTF-16LE' "$GPTVQ" tokenize "$model" --text wide.txt
run sh -c '"$1" tokenize "$2" --text - < latin.txt' sh "$GPTVQ" "$model"
expect_err 'warning: standard input is not UTF-8'
for file in lines.jsonl the.txt; do # who tokenizes such a file may mean it
  expect_ok "$GPTVQ" tokenize "$model" --text $file
  [ ! -s "$capture/err" ] || die "tokenize warns about $file"
done
# one that is too short as well says both
head -c 200 wide.txt > part.txt
expect_warning 'warning: part.txt looks like UTF-16LE' "$GPTVQ" generate "$model" --prompt-file part.txt -n 1 --quiet
expect_fail 8 'too short' "$GPTVQ" eval "$model" --text part.txt
expect_err 'warning: part.txt looks like UTF-16LE'
expect_fail 8 'too short' "$GPTVQ" quantize "$model" -o out2 --calib part.txt
expect_err 'warning: part.txt looks like UTF-16LE'
rm -rf out ./*.txt p.parquet lines.jsonl
: > empty.txt
printf 'Once upon a time' > short.txt

# the tokenizer
copy_model m
rm m/tokenizer.json
expect_fail 3 'tokenizer\.json' "$GPTVQ" eval m --text "$text"
: > m/tokenizer.model
expect_fail 3 'm: no tokenizer\.json in this folder; tokenizer\.model is not read: convert it' "$GPTVQ" eval m --text "$text"
printf '{' > m/tokenizer.json
expect_fail 4 'tokenizer\.json' "$GPTVQ" eval m --text "$text"

# a tokenizer that does not belong to the model: ids beyond its vocabulary
cp -r "$SOURCE/tests/golden/model/llama" tiny
cp "$model/tokenizer.json" tiny
expect_fail 8 "id [0-9]+, but the model.s vocabulary has [0-9]+ entries" "$GPTVQ" eval tiny --text "$text" --ctx 8 --quiet
expect_fail 8 'vocabulary' "$GPTVQ" generate tiny -p 'Once upon a time there was a little girl' -n 1 --json --quiet
expect_fail 2 'cannot be compared: the first has a vocabulary of 1024' "$GPTVQ" compare "$model" tiny --text "$text" --ctx 8

# weights: a NaN in a small tensor is found at once, one in a matrix when its products are, and then it is named
cp "$model/tokenizer.json" m/tokenizer.json
poke m/model.safetensors $(($(data_offset m/model.safetensors model.norm.weight) + 20)) '\300\177'
expect_fail 6 'model\.norm\.weight.*(NaN|infinit)' "$GPTVQ" inspect m
rm -rf m
copy_model m
poke m/model.safetensors $(($(data_offset m/model.safetensors model.layers.2.mlp.up_proj.weight) + 4000)) '\300\177'
where='m/model\.safetensors: tensor model\.layers\.2\.mlp\.up_proj\.weight holds NaN or infinity at row 7, column 208$'
expect_fail 6 "$where" "$GPTVQ" eval m --text "$text" --ctx 64 --max-windows 1 --quiet
expect_fail 6 "$where" "$GPTVQ" compare "$model" m --text "$text" --ctx 64 --max-windows 1 --quiet
expect_fail 6 "$where" "$GPTVQ" generate m -p 'Once upon' -n 3 --quiet --no-echo --json

# logits that are finite, and too far apart for a perplexity
rm -rf m
copy_model m
# shellcheck disable=SC2046
poke m/model.safetensors $(($(data_offset m/model.safetensors lm_head.weight) + 5 * 512)) "$(printf 'Iq%.0s' $(seq 256))" # row 5: 1e30
where='m: the perplexity overflows, with a mean loss of [0-9.]+e\+[0-9]+ nats per token: the logits, outputs of lm_head\.weight,'
expect_fail 6 "$where" "$GPTVQ" eval m --text "$text" --ctx 64 --max-windows 1 --quiet
expect_fail 6 "$where" "$GPTVQ" compare "$model" m --text "$text" --ctx 64 --max-windows 1 --quiet

# a full standard output
if [ -w /dev/full ]; then
  for command in "inspect $model" "inspect $model --json" 'eval --help' '--help'; do
    # shellcheck disable=SC2086
    run sh -c 'exec "$@" > /dev/full' sh "$GPTVQ" $command
    [ "$code" = 3 ] || die "full standard output: exit code $code from $command"
    expect_err '^gptvq: error: cannot write to standard output: '
  done
fi
