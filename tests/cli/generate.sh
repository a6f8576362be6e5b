# Generation: greedy equals transformers' (tests/golden/eval/make_reference.py); streaming, seeds, limits and odd prompts.
. "$SOURCE/tests/cli/lib.sh"

ids() { # the ids of the JSON on standard input under KEY $1, one per line
  awk -v key="\"$1\":" '$1 == key {on = 1; next} on && /\]/ {exit} on {gsub(/[ ,]/, ""); print}'
}
expect_ok "$GPTVQ" generate "$model" -p 'Once upon a time' -n 60 --temp 0 --json
ids ids < "$capture/out" > got
awk '/"greedy"/ {greedy = 1} greedy' "$SOURCE/tests/golden/eval/reference.json" | ids ids > expected
[ "$(wc -l < expected)" -eq 60 ] || die "the reference has $(wc -l < expected) ids"
cmp -s got expected || die "greedy tokens differ from transformers': $(tr '\n' ' ' < got)"
[ "$(json stop) $(json tokens) $(json prompt_tokens)" = "length 60 4" ] || die "wrong counts"
rm got expected

# streamed text is what the JSON says; messages go to standard error
story="Once upon a time, there was a little girl named Lily. She loved to play with her toys and her friends. One day, Lily's mommy told"
expect_ok "$GPTVQ" generate "$model" -p 'Once upon a time' -n 24 --temp 0
head -n 1 "$capture/out" | grep -Fq "Once upon a time, there was a little girl named Lily." || die "the text is wrong: $(cat "$capture/out")"
case $story in "$(head -n 1 "$capture/out")"*) ;; *) die "not the reference's text: $(cat "$capture/out")" ;; esac
expect_err '^prompt: 4 tokens, [0-9.]+ tokens/s; decoding: 24 tokens, [0-9.]+ tokens/s \(length; seed [0-9]+\)$'
expect_ok "$GPTVQ" generate "$model" -p 'Once upon a time' -n 24 --temp 0 --no-echo --quiet
case "$(cat "$capture/out")" in ", there was"*) ;; *) die "--no-echo prints: $(cat "$capture/out")" ;; esac
[ ! -s "$capture/err" ] || die "--quiet is not quiet"
printf 'Once upon a time' > prompt.txt
expect_ok "$GPTVQ" generate "$model" --prompt-file prompt.txt -n 1 --temp 0
expect_out '^Once upon a time,$'

# seeds: the same text for the same seed and any number of threads, another one for another
sample() { "$GPTVQ" generate "$model" -p 'One day' -n 40 --quiet "$@"; }
sample --seed 7 --threads 1 > a.txt
sample --seed 7 --threads 2 > b.txt
sample --seed 8 > c.txt
cmp -s a.txt b.txt || die "the same seed gives two texts"
! cmp -s a.txt c.txt || die "two seeds give the same text"
sample --seed 7 --top-k 1 > a.txt
sample --temp 0 > b.txt
cmp -s a.txt b.txt || die "--top-k 1 is not greedy"
sample --seed 7 --min-p 1 > a.txt
cmp -s a.txt b.txt || die "--min-p 1 is not greedy"
expect_ok "$GPTVQ" generate "$model" -p 'Once upon a time' -n 40 --temp 0 --repeat-penalty 1.3 --json # tests/golden/sample/make_greedy.py
ids ids < "$capture/out" > c.txt
cmp -s c.txt "$SOURCE/tests/golden/sample/greedy.txt" || die "penalized tokens differ from transformers': $(tr '\n' ' ' < c.txt)"
rm a.txt b.txt c.txt

# limits
expect_ok "$GPTVQ" generate "$model" -p 'Once' -n 0 --json
[ "$(json tokens) $(json text)" = "0 Once" ] || die "-n 0 generates something"
expect_ok "$GPTVQ" generate "$model" -p '' -n 5 --temp 0 --json
[ "$(json prompt_tokens) $(json tokens)" = "1 5" ] || die "an empty prompt does not start from BOS"
expect_fail 2 'the prompt is empty and --no-bos' "$GPTVQ" generate "$model" -p '' --no-bos
expect_fail 2 'give a prompt' "$GPTVQ" generate "$model"
expect_fail 2 'give a prompt' "$GPTVQ" generate "$model" -p x --prompt-file prompt.txt
expect_fail 3 'nothing\.txt' "$GPTVQ" generate "$model" --prompt-file nothing.txt
expect_fail 8 'the prompt has [0-9]+ tokens, the model.s context 2048' "$GPTVQ" generate "$model" --prompt-file "$text"
head -c 7000 "$text" > long.txt
expect_ok "$GPTVQ" generate "$model" --prompt-file long.txt -n 9 --temp 0 --json --quiet
[ "$(json tokens)" = 9 ] || die "a long prompt fails"
# one context of 8 positions: room for 4 after the prompt
copy_model m
edit m/config.json 's/"max_position_embeddings": 2048/"max_position_embeddings": 8/'
expect_ok "$GPTVQ" generate m -p 'Once upon a time' -n 60 --temp 0 --json
[ "$(json stop) $(json tokens)" = "context 4" ] || die "generation does not stop at the context's end"
expect_err 'warning: the model.s context of 8 tokens leaves room for 4'
# an end token that comes at once (the comma): nothing more is printed
edit m/config.json 's/"max_position_embeddings": 8/"max_position_embeddings": 99/; s/"eos_token_id": 1/"eos_token_id": 13/'
edit m/generation_config.json 's/"eos_token_id": 1/"eos_token_id": 13/'
expect_ok "$GPTVQ" generate m -p 'Once upon a time' -n 60 --temp 0 --json
[ "$(json stop) $(json tokens)" = "eos 0" ] || die "generation does not stop at the end token"
expect_ok "$GPTVQ" generate m -p 'Once upon a time' -n 6 --temp 0 --json --ignore-eos
[ "$(json stop) $(json tokens)" = "length 6" ] || die "--ignore-eos stops"
