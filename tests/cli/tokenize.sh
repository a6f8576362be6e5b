# Tokenize: ids and back, as lines and as JSON, from files and standard input; the template; bad input.
. "$SOURCE/tests/cli/lib.sh"
golden_text=$SOURCE/tests/golden/text

printf 'Once upon a time there was a girl.\n' > story.txt
expect_ok "$GPTVQ" tokenize "$model" --text story.txt
cp "$capture/out" ids.txt
[ "$(tr ' ' '\n' < ids.txt | grep -Ecx '[0-9]+')" -gt 5 ] || die "no ids: $(cat ids.txt)"
expect_ok "$GPTVQ" tokenize "$model" --text ids.txt --decode
cmp -s "$capture/out" story.txt || die "decoding does not give the text back"
expect_ok "$GPTVQ" tokenize "$model" --text story.txt --json
cp "$capture/out" ids.json
[ "$(tr -d '[],' < ids.json)" = "$(tr '\n' ' ' < ids.txt | sed 's/ $//')" ] || die "--json prints other ids"
expect_ok "$GPTVQ" tokenize "$model" --text ids.json --decode
cmp -s "$capture/out" story.txt || die "decoding the JSON list does not give the text back"
expect_ok "$GPTVQ" tokenize "$model" --text ids.json --decode --json
expect_out '^"Once upon a time there was a girl\.\\n"$'
"$GPTVQ" tokenize "$model" --text - < story.txt > piped.txt
cmp -s piped.txt ids.txt || die "standard input gives other ids"

# the whole evaluation text comes back byte for byte
"$GPTVQ" tokenize "$model" --text "$text" | "$GPTVQ" tokenize "$model" --text - --decode > back.txt
cmp -s back.txt "$text" || die "the evaluation text does not come back"

# the template's token in front, and special tokens left out
expect_ok "$GPTVQ" tokenize "$golden_text/llama2.json" --text story.txt
expect_out '^1 '
expect_ok "$GPTVQ" tokenize "$golden_text/llama2.json" --text story.txt --no-bos
! grep -Eq '^1 ' "$capture/out" || die "--no-bos has a BOS"
printf '[1, 2]' > special.json
expect_ok "$GPTVQ" tokenize "$golden_text/llama2.json" --text special.json --decode
[ "$(cat "$capture/out")" = "<s></s>" ] || die "special tokens: $(cat "$capture/out")"
expect_ok "$GPTVQ" tokenize "$golden_text/llama2.json" --text special.json --decode --skip-special
[ ! -s "$capture/out" ] || die "--skip-special prints $(cat "$capture/out")"

# nothing in, nothing out
: > empty.txt
expect_ok "$GPTVQ" tokenize "$model" --text empty.txt --json
expect_out '^\[\]$'
expect_ok "$GPTVQ" tokenize "$model" --text empty.txt --decode
[ ! -s "$capture/out" ] || die "no ids decode to $(cat "$capture/out")"

expect_fail 2 'needs --text' "$GPTVQ" tokenize "$model"
expect_fail 2 'goes with --decode' "$GPTVQ" tokenize "$model" --text story.txt --skip-special
expect_fail 3 'no-such-file' "$GPTVQ" tokenize "$model" --text no-such-file
expect_fail 3 'no-such-model' "$GPTVQ" tokenize no-such-model --text story.txt
mkdir bare
expect_fail 3 'bare: no tokenizer.json' "$GPTVQ" tokenize bare --text story.txt
expect_fail 8 "'Once' is not a token id" "$GPTVQ" tokenize "$model" --text story.txt --decode
printf '5 99999' > far.txt
expect_fail 8 'token id 99999 is outside the vocabulary \(0 to 1023\)' "$GPTVQ" tokenize "$model" --text far.txt --decode
printf '5 -1' > negative.txt
expect_fail 8 'token id -1 is outside' "$GPTVQ" tokenize "$model" --text negative.txt --decode
printf '5 99999999999999999999999' > huge.txt
expect_fail 8 'token id 9+ is outside' "$GPTVQ" tokenize "$model" --text huge.txt --decode
printf '{"model": {"type": "Unigram", "vocab": []}}' > bare/tokenizer.json
expect_fail 5 'tokenizer.json: tokenizer model Unigram is not supported' "$GPTVQ" tokenize bare --text story.txt
printf '{"model": ' > bare/tokenizer.json
expect_fail 4 'tokenizer.json: not valid JSON' "$GPTVQ" tokenize bare --text story.txt
[ ! -e /dev/full ] || { run sh -c '"$0" tokenize "$1" --text story.txt > /dev/full' "$GPTVQ" "$model"; [ "$code" = 3 ] || die "a full output gives $code"; }
