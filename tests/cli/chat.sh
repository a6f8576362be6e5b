# Conversations: the template's text and nothing else reaches the model, turns go on where the last one ended, and what cannot be said
# is one clear line. The bundled model tells stories; templates of our own make it a chat model.
. "$SOURCE/tests/cli/lib.sh"

ids() { # the ids of the JSON on standard input under KEY $1, in one line
  awk -v key="\"$1\":" '$1 == key {on = 1; next} on && /\]/ {exit} on {gsub(/[ ,]/, ""); printf "%s ", $0}'
}
printf '{{ bos_token }}{%% for m in messages %%}{{ m.content }}{%% endfor %%}' > joined.jinja
chat() { "$GPTVQ" chat "$model" --template joined.jinja --temp 0 --quiet "$@"; }

# one turn: the rendered text as tokens (special ones as such, none added), then what generate makes of them
expect_ok "$GPTVQ" chat "$model" --template joined.jinja -p 'Once upon a time' -n 24 --temp 0 --json
ids prompt_ids < "$capture/out" > got
ids ids < "$capture/out" > got-ids
[ "$(json stop) $(json tokens)" = "length 24" ] || die "wrong counts"
printf '<|begin_of_text|>Once upon a time' > text.txt
expect_ok "$GPTVQ" generate "$model" --prompt-file text.txt --no-bos -n 24 --temp 0 --json
[ "$(ids prompt_ids < "$capture/out")" = "$(cat got)" ] || die "the prompt is $(cat got), not $(ids prompt_ids < "$capture/out")"
[ "$(ids ids < "$capture/out")" = "$(cat got-ids)" ] || die "the answer differs from generate's"
"$GPTVQ" generate "$model" --prompt-file text.txt --no-bos -n 24 --temp 0 --no-echo --quiet > expected.txt
chat -p 'Once upon a time' -n 24 > out.txt
cmp out.txt expected.txt || die "the answer is $(cat out.txt)"
printf 'Once upon a time\n' | chat -n 24 > out.txt
cmp out.txt expected.txt || die "a text from a pipe is another one: $(cat out.txt)"
printf 'Once upon a time' | chat -p - -n 24 > out.txt
cmp out.txt expected.txt || die "-p - is another text: $(cat out.txt)"
expect_ok "$GPTVQ" chat "$model" --template joined.jinja --system 'Once upon' -p ' a time' -n 24 --temp 0
cmp "$capture/out" expected.txt || die "--system is not the first message"
expect_err '^prompt: [0-9]+ tokens, [0-9.]+ tokens/s; decoding: 24 tokens, [0-9.]+ tokens/s \(length; seed [0-9]+\)$'
chat -p 'One day' -n 30 --temp 1 --seed 7 > a.txt
chat -p 'One day' -n 30 --temp 1 --seed 7 --threads 1 > b.txt
cmp a.txt b.txt || die "the same seed gives two answers"

# turns: the second one follows the first one's answer, as if all of it had been said at once
printf 'Once upon a time\n She was\n' | chat -i -n 12 > out.txt
first=$(head -n 1 out.txt)
second=$(sed -n 2p out.txt)
chat -p "Once upon a time$first She was" -n 12 > expected.txt
[ "$second" = "$(head -n 1 expected.txt)" ] || die "the second turn goes on with '$second', not with '$(cat expected.txt)'"
# /reset forgets, /system is a message, \ joins lines, // says a slash
printf 'One day\n/reset\nOnce upon a time\n' | chat -i -n 12 > out.txt
[ "$(sed -n 2p out.txt)" = "$first" ] || die "/reset does not forget: $(cat out.txt)"
printf '/system Once upon\n a time\n/system\n/reset\nOnce upon a time\n/quit\nOne day\n' | chat -i -n 12 > out.txt
[ "$(cat out.txt)" = "$(printf '%s\n%s' "$first" "$first")" ] || die "/system is not a message: $(cat out.txt)"
printf 'a\\\nb\n' | chat -i -n 1 > out.txt
printf '{{ raise_exception("<" ~ messages[0].content ~ ">") }}' > echo.jinja
printf 'a\\\nb\n//help\n/hlep\n/help\n' > lines
"$GPTVQ" chat "$model" --template echo.jinja -i < lines > out.txt 2> err.txt || die "questions that fail end the program"
grep -q '^gptvq: error: echo.jinja: the template refuses the conversation: <a?b>$' err.txt || die "no line goes on: $(cat err.txt)"
grep -q '</help>' err.txt || die "// does not say a slash: $(cat err.txt)"
grep -q '^gptvq: error: unknown command /hlep; did you mean /help?$' err.txt || die "no advice: $(cat err.txt)"
grep -q '^/system TEXT' out.txt || die "/help says nothing"
if script -qec true /dev/null > /dev/null 2>&1; then # on a terminal, where there are any
  printf '/help\n/quit\n' | script -qec "'$GPTVQ' chat '$model' --template joined.jinja" /dev/null > out.txt || die "a terminal is another matter: $(cat out.txt)"
  grep -qE '^(> )?/system TEXT' out.txt || die "no conversation on a terminal: $(cat out.txt)"
fi

# what ends an answer: EOS, the token that the template ends turns with, the context
copy_model m
cp joined.jinja m/chat_template.jinja
edit m/config.json 's/"max_position_embeddings": 2048/"max_position_embeddings": 64/'
expect_ok "$GPTVQ" chat m -p 'Once upon a time' --temp 0 --json
[ "$(json stop)" = context ] || die "the answer does not end with the context: $(json stop)"
printf 'Once upon a time\n She was\nThen\n' | "$GPTVQ" chat m -i --temp 0 > out.txt 2> err.txt
[ "$(wc -l < out.txt)" -ge 3 ] || die "a full context ends the conversation: $(cat out.txt err.txt)"
grep -q 'warning: the answer ends where the context of 64 tokens is full' err.txt || die "no word about the end: $(cat err.txt)"
grep -q 'warning: the conversation does not fit into 64 tokens any more: its oldest question' err.txt || die "no word about what is left out: $(cat err.txt)"
head -c 2000 "$text" > long.txt
expect_fail 8 'this takes [0-9]+ tokens, and the context has 64' sh -c '"$0" chat m < long.txt' "$GPTVQ"
expect_ok "$GPTVQ" chat m -p 'Once' -n 1 --ctx 4096
expect_err 'warning: --ctx: the model.s context has 64 tokens'
edit m/config.json 's/"max_position_embeddings": 64/"max_position_embeddings": 2048/; s/"eos_token_id": 1/"eos_token_id": 13/'
edit m/generation_config.json 's/"eos_token_id": 1/"eos_token_id": 13/'
expect_ok "$GPTVQ" chat m -p 'Once upon a time' -n 60 --temp 0 --json
[ "$(json stop) $(json tokens)" = "eos 0" ] || die "the answer does not end at EOS (a comma)"
edit m/config.json 's/"eos_token_id": 13/"eos_token_id": 3/'
edit m/generation_config.json 's/"eos_token_id": 13/"eos_token_id": 3/'
edit m/tokenizer_config.json 's/"eos_token": "[^"]*"/"eos_token": null/'
expect_ok "$GPTVQ" chat m -p 'Once upon a time' -n 700 --temp 0 --json
[ "$(json stop)" = length ] || die "something ends the answer before the test does: $(json stop)"
printf '{{ bos_token }}{%% for m in messages %%}{{ m.content }}{{ "<|end_of_text|>\n" if m.role == "assistant" }}{%% endfor %%}' > m/chat_template.jinja
expect_ok "$GPTVQ" chat m -p 'Once upon a time' -n 700 --temp 0 --json
[ "$(json stop)" = eos ] || die "the template's own end of a turn does not end it: $(json stop)"
# special tokens in what is said
expect_ok "$GPTVQ" chat m -p 'Once <|end_of_text|> upon' -n 1
expect_err 'warning: the text holds special tokens of the model'
expect_ok "$GPTVQ" chat m -p 'Once upon <|nothing|>' -n 1
! grep -q warning "$capture/err" || die "warns of nothing: $(cat "$capture/err")"

# what cannot be
expect_fail 5 'this model has no chat template .*--template FILE.*gptvq generate' "$GPTVQ" chat "$model" -p x
expect_fail 3 'nothing\.jinja' "$GPTVQ" chat "$model" --template nothing.jinja -p x
printf 'x\n{%% if %%}' > bad.jinja
expect_fail 4 'bad\.jinja: line 2: expected an expression' "$GPTVQ" chat "$model" --template bad.jinja -p x
printf '{%% include "y" %%}' > bad.jinja
expect_fail 5 'bad\.jinja: line 1: \{% include %\} is not supported' "$GPTVQ" chat "$model" --template bad.jinja -p x
printf '{%% macro m() %%}{{ m() }}{%% endmacro %%}\n{{ m() }}' > bad.jinja
expect_fail 5 'bad\.jinja: line 1: more than [0-9]+ levels' "$GPTVQ" chat "$model" --template bad.jinja -p x
expect_fail 8 'echo\.jinja: the template refuses the conversation: <hello>' "$GPTVQ" chat "$model" --template echo.jinja -p hello
expect_fail 8 'the text is not UTF-8' "$GPTVQ" chat "$model" --template joined.jinja -p "$(printf '\377')"
expect_fail 8 'standard input is empty' "$GPTVQ" chat "$model" --template joined.jinja
expect_fail 2 '-p is empty' "$GPTVQ" chat "$model" --template joined.jinja -p ''
expect_fail 2 '--json is for one turn' "$GPTVQ" chat "$model" --template joined.jinja -i --json
expect_fail 2 'give one of them' "$GPTVQ" chat "$model" --template joined.jinja -i -p x
expect_fail 3 'nowhere does not exist' "$GPTVQ" chat nowhere --template joined.jinja -p x

# a stopped answer keeps what was printed
"$GPTVQ" chat "$model" --template joined.jinja -p 'Once upon a time' --temp 0 --threads 1 > "$capture/out" 2> "$capture/err" &
pid=$!
tries=0
while [ ! -s "$capture/out" ] && kill -0 $pid 2> /dev/null; do
  tries=$((tries + 1))
  [ $tries -lt 600 ] || die "no answer in a minute"
  sleep 0.1
done
kill -INT $pid 2> /dev/null || true
code=0
wait $pid || code=$?
case $code in 0 | 130) ;; *) die "exit code $code of an interrupted answer" ;; esac
[ "$code" = 0 ] || expect_err '^gptvq: error: stopped on request$'
