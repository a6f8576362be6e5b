# The server: every address, what a client may get wrong, clients that mean harm, and its end. The bundled model tells stories; a template
# of our own makes it a chat model.
. "$SOURCE/tests/cli/lib.sh"

printf '{%% for m in messages %%}{{ m.content }}{%% endfor %%}' > "$capture/joined.jinja"
run "$GPTVQ" serve nowhere
if grep -q 'built without its server' "$capture/err"; then # that line is all there is to test
  expect_fail 5 'built without its server: install libmicrohttpd-dev' "$GPTVQ" serve "$model"
  exit 0
fi
export MALLOC_ARENA_MAX=2 # memory then tells of leaks, not of how many threads have been where
server=""
trap '[ -z "$server" ] || kill -KILL $server 2> /dev/null; rm -rf "$capture"' EXIT
# start OPTIONS…: a server, its process in $server, its address in $url
start() {
  rm -f "$capture/log" "$capture/url"
  "$GPTVQ" serve "$model" --port 0 --template "$capture/joined.jinja" "$@" > "$capture/url" 2> "$capture/log" &
  server=$!
  tries=0
  while [ ! -s "$capture/url" ]; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] && kill -0 $server 2> /dev/null || die "no server: $(cat "$capture/log")"
    sleep 0.1
  done
  url=$(cat "$capture/url")
}
# stop CODE: SIGTERM, and the exit code that follows
stop() {
  kill -TERM $server
  code=0
  wait $server || code=$?
  server=""
  [ "$code" = "$1" ] || die "the server ends with $code: $(cat "$capture/log")"
}
# ask STATUS PATH [BODY] [curl's options…]: the answer in $capture/out
ask() {
  want=$1 path=$2
  shift 2
  body=${1-}
  [ $# = 0 ] || shift
  if [ -n "$body" ]; then set -- -H 'Content-Type: application/json' -d "$body" "$@"; fi
  got=$(curl -sS -m 120 -o "$capture/out" -w '%{http_code}' "$@" "$url$path" 2> "$capture/err") || die "curl fails at $path: $(cat "$capture/err")"
  [ "$got" = "$want" ] || die "$path gives $got, not $want: $(cat "$capture/out")"
}
has() { grep -qF -- "$1" "$capture/out" || die "the answer has no $1: $(cat "$capture/out")"; }
has_not() { ! grep -qF -- "$1" "$capture/out" || die "the answer has $1: $(cat "$capture/out")"; }
# refused STATUS PATTERN PATH BODY [curl's options…]: an error in OpenAI's shape
refused() {
  want=$1 pattern=$2
  shift 2
  ask "$want" "$@"
  grep -Eq '^\{"error":\{"message":"[^"]([^"\\]|\\.)*","type":"[a-z_]+","param":(null|"[a-z_]+"),"code":(null|"[a-z_]+")\}\}$' "$capture/out" ||
    die "not an error as clients know them: $(cat "$capture/out")"
  grep -Eq -- "$pattern" "$capture/out" || die "the error is not '$pattern': $(cat "$capture/out")"
}
metric() { curl -sS -m 20 "$url/metrics" | awk -v name="gptvq_$1" '$1 == name {print $2}'; }
memory() { awk '$1 == "VmRSS:" {print $2}' "/proc/$server/status"; }

start --parallel 3 --max-body 100000 --ctx 512
ask 200 /health
has '{"status":"ok"}'
ask 200 /v1/models
has '"id":"stories-4m","object":"model"'
ask 200 /v1/models/stories-4m
ask 200 /
has '<!doctype html>'
ask 200 /tokenize '{"content": "Once upon a time"}'
has '{"tokens":[396,397,260,377],"count":4,"max_model_len":512}'
ask 200 /detokenize '{"tokens": [396, 397, 260, 377]}'
has '"content":"Once upon a time"'

# completions are what generate writes, however they are asked for
"$GPTVQ" generate "$model" -p 'Once upon a time' -n 24 --temp 0 --no-echo --quiet > "$capture/expected"
text=$(cat "$capture/expected")
ask 200 /v1/completions '{"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0}'
has "\"text\":\"$text\""
has '"finish_reason":"length"'
has '"usage":{"prompt_tokens":4,"completion_tokens":24,"total_tokens":28'
ask 200 /v1/completions '{"model": "stories-4m", "prompt": [396, 397, 260, 377], "max_tokens": 24, "temperature": 0, "echo": true}'
has "\"text\":\"Once upon a time$text\""
ask 200 /v1/completions '{"prompt": ["One day", "Once upon a time"], "max_tokens": 24, "temperature": 0, "n": 2}'
[ "$(grep -oF "\"text\":\"$text\"" "$capture/out" | wc -l)" = 2 ] || die "not two of two: $(cat "$capture/out")"
has '"index":3,'
ask 200 /v1/completions '{"prompt": [[396, 397, 260, 377]], "max_tokens": 24, "temperature": 0, "stream": true, "stream_options": {"include_usage": true}}' -N
sed -n 's/^data: .*"text":"\([^"]*\)".*/\1/p' "$capture/out" | tr -d '\n' > "$capture/streamed"
[ "$(cat "$capture/streamed")" = "$text" ] || die "the stream says '$(cat "$capture/streamed")'"
[ "$(tail -n 2 "$capture/out")" = "$(printf 'data: [DONE]\n')" ] || die "the stream has no end: $(tail -n 3 "$capture/out")"
has '"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":24'
ask 200 /v1/chat/completions '{"messages": [{"role": "user", "content": "Once upon"}, {"role": "user", "content": [{"type": "text", "text": " a time"}]}], "max_completion_tokens": 24, "temperature": 0}'
has "\"message\":{\"role\":\"assistant\",\"content\":\"$text\""
has '"object":"chat.completion"'
ask 200 /v1/chat/completions '{"messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 24, "temperature": 0, "stream": true}' -N
has '"delta":{"role":"assistant","content":""}'
sed -n 's/^data: .*"delta":{"content":"\([^"]*\)".*/\1/p' "$capture/out" | tr -d '\n' > "$capture/streamed"
[ "$(cat "$capture/streamed")" = "$text" ] || die "the chat's stream says '$(cat "$capture/streamed")'"
# a stop text, in the middle of a stream
ask 200 /v1/completions '{"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0, "stop": ["irl nam", "zzz"]}'
has "\"text\":\"${text%%irl nam*}\""
has '"finish_reason":"stop"'
ask 200 /v1/completions '{"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0, "stop": "irl nam", "stream": true}' -N
sed -n 's/^data: .*"text":"\([^"]*\)".*/\1/p' "$capture/out" | tr -d '\n' > "$capture/streamed"
[ "$(cat "$capture/streamed")" = "${text%%irl nam*}" ] || die "the stopped stream says '$(cat "$capture/streamed")'"
# seeds
ask 200 /v1/completions '{"prompt": "One day", "max_tokens": 30, "seed": 7}'
sed 's/.*"choices"/"choices"/' "$capture/out" > "$capture/a"
ask 200 /v1/completions '{"prompt": "One day", "max_tokens": 30, "seed": 7, "n": 1}'
sed 's/.*"choices"/"choices"/' "$capture/out" > "$capture/b"
cmp "$capture/a" "$capture/b" || die "the same seed gives two answers"
# log probabilities: of the prompt, of the answer, of others
ask 200 /v1/completions '{"prompt": "Once upon a time", "max_tokens": 1, "temperature": 0, "echo": true, "logprobs": 2}'
has '"tokens":["Once"," upon"," a"," time",","]'
has '"token_logprobs":[null,-'
has '"text_offset":[0,4,9,11,16]'
has '"top_logprobs":[null,{" upon":-'
ask 200 /v1/completions '{"prompt": "Once upon a time", "max_tokens": 0, "echo": true, "logprobs": 0}'
has '"tokens":["Once"," upon"," a"," time"],"token_logprobs":[null,-'
ask 200 /v1/chat/completions '{"messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 1, "temperature": 0, "logprobs": true, "top_logprobs": 2}'
has '"logprobs":{"content":[{"token":",","logprob":-'
has '"bytes":[44],"top_logprobs":[{"token":",",'

# shared beginnings are computed once
long='Once upon a time there was a little girl who lived in a small house near the forest. Every day she went out to play with her dog'
ask 200 /v1/completions "{\"prompt\": \"$long\", \"max_tokens\": 4, \"temperature\": 0}"
has_not '"cached_tokens":31}'
sed 's/.*"choices"/"choices"/; s/,"usage".*//' "$capture/out" > "$capture/a"
ask 200 /v1/completions "{\"prompt\": \"$long\", \"max_tokens\": 4, \"temperature\": 0}"
has '"cached_tokens":31}'
sed 's/.*"choices"/"choices"/; s/,"usage".*//' "$capture/out" > "$capture/b"
cmp "$capture/a" "$capture/b" || die "the cached prompt has another answer"
# twelve clients at a time, three of them at once
pids=""
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
  curl -sS -m 120 -H 'Content-Type: application/json' -d '{"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0}' \
    -o "$capture/client$i" "$url/v1/completions" &
  pids="$pids $!"
done
for pid in $pids; do wait "$pid" || die "a client fails"; done
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
  grep -qF "\"text\":\"$text\"" "$capture/client$i" || die "client $i has another answer: $(cat "$capture/client$i")"
done

# what a client may get wrong: the right status, an error in OpenAI's shape, a line in the log
refused 400 'not valid JSON: .*line 1' /v1/completions '{"prompt": '
refused 400 'must be a JSON object' /v1/completions '[]'
refused 400 "'prompt' is missing" /v1/completions '{"max_tokens": 3}'
refused 400 "'prompt' must be a text, a list" /v1/completions '{"prompt": 3}'
refused 400 'token id 99999 is outside the vocabulary' /v1/completions '{"prompt": [99999]}'
refused 400 'must be a whole number' /v1/completions '{"prompt": [1, "a"]}'
refused 400 "'max_tokens' must be a whole number" /v1/completions '{"prompt": "a", "max_tokens": "many"}'
refused 400 "'temperature' must be a number from 0" /v1/completions '{"prompt": "a", "temperature": -1}'
refused 400 "'n' must be a whole number from 1 to 256" /v1/completions '{"prompt": "a", "n": 0}'
refused 400 'more than 256 answers' /v1/completions '{"prompt": ["a", "b"], "n": 200}'
refused 400 "'suffix' is not supported" /v1/completions '{"prompt": "a", "suffix": "b"}'
refused 400 "'logprobs' must be a whole number from 0 to 20" /v1/completions '{"prompt": "a", "logprobs": 21}'
ids=$(yes 396 | head -n 400 | paste -sd, -)
refused 400 'more than 1048576 log probabilities' /v1/completions '{"prompt": ['"$ids"'], "n": 256, "echo": true, "logprobs": 20, "max_tokens": 0}'
refused 404 "model_not_found" /v1/completions '{"prompt": "a", "model": "another"}'
refused 404 "model_not_found" /v1/models/another
refused 404 'there is no /v1/embeddings' /v1/embeddings '{}'
refused 405 'takes POST' /v1/completions
refused 405 'takes GET' /health '{}'
refused 415 'must be JSON' /v1/completions '' -d '{}' -H 'Content-Type: text/plain'
refused 400 "only .*text.* is supported" /v1/chat/completions '{"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "json_object"}}'
refused 400 "'tools' is not supported" /v1/chat/completions '{"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function"}]}'
refused 400 'reads text only' /v1/chat/completions '{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}'
for wrong in true 1 '"a"' '[]'; do
  refused 400 "'chat_template_kwargs' must be an object" /v1/chat/completions '{"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": '"$wrong"'}'
done
refused 400 "message 0 must be an object" /v1/chat/completions '{"messages": [{}]}'
refused 400 "'tokens' must be a list" /detokenize '{"tokens": 3}'
printf '{"prompt": "a\377"}' > "$capture/body"
refused 400 'not valid JSON: unable to decode byte 0xff' /v1/completions '' --data-binary "@$capture/body" -H 'Content-Type: application/json'
head -c 6000 "$SOURCE/examples/text/eval.txt" | tr -d '"\\' | tr '\n' ' ' | sed 's/.*/{"prompt": "&"}/' > "$capture/body"
refused 400 'context_length_exceeded' /v1/completions '' --data-binary "@$capture/body" -H 'Content-Type: application/json'
head -c 200000 /dev/zero | tr '\0' 'a' > "$capture/body"
refused 413 'more than 100000 bytes' /v1/completions '' --data-binary "@$capture/body" -H 'Content-Type: application/json'
refused 403 'pages of http://evil.example may not' /v1/completions '{"prompt": "a"}' -H 'Origin: http://evil.example'
ask 200 /v1/completions '{"prompt": "a", "max_tokens": 1}' -H "Origin: $url"
# names that resolve to this machine, and are anybody's
refused 403 'evil.example is no name of this machine' /v1/models '' -H 'Host: evil.example'
refused 403 '127.evil.example:80 is no name of this machine' /metrics '' -H 'Host: 127.evil.example:80'
refused 403 'pages of http://127.evil.example may not' /v1/models '' -H 'Host: 127.evil.example' -H 'Origin: http://127.evil.example'
for host in localhost '127.1.2.3:80' '[::1]:80' "${url#http://}"; do ask 200 /v1/models '' -H "Host: $host"; done
grep -Eq "^POST /v1/completions 400 [0-9.]+ s: 'prompt' is missing$" "$capture/log" || die "no line in the log: $(cat "$capture/log")"

# a client that goes away frees its slot at once
before=$(metric cancelled_total)
for i in 1 2 3; do
  curl -sN -m 1 -H 'Content-Type: application/json' -d '{"prompt": "Once upon a time", "max_tokens": 500, "ignore_eos": true, "stream": true}' \
    --limit-rate 100 -o /dev/null "$url/v1/completions" &
  pids="$!"
  sleep 0.05
  kill -KILL "$pids" 2> /dev/null || true
  wait "$pids" 2> /dev/null || true
done
tries=0
while [ "$(metric slots_busy)" != 0 ]; do
  tries=$((tries + 1))
  [ $tries -lt 100 ] || die "slots are still busy"
  sleep 0.1
done
[ "$(metric cancelled_total)" -ge "$before" ] || die "nothing was counted"

# clients that mean harm (GPTVQ_HOSTILE=10000 for many of them): everybody else is answered, and memory is what it was
"$HOSTILE" "${url##*:}" 300 > "$capture/out" 2> "$capture/err" || die "$(cat "$capture/err")"
before=$(memory)
"$HOSTILE" "${url##*:}" "${GPTVQ_HOSTILE:-1000}" > "$capture/out" 2> "$capture/err" || die "$(cat "$capture/err")"
after=$(memory)
[ -n "$SANITIZE" ] || [ "$after" -le $((before + 4096)) ] || die "memory grows from $before to $after kB"
ask 200 /v1/completions '{"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0}'
has "\"text\":\"$text\""
tries=0
while [ "$(metric slots_busy)" != 0 ]; do
  tries=$((tries + 1))
  [ $tries -lt 300 ] || die "slots are still busy"
  sleep 0.1
done

# the end: what has begun is answered, nothing new is taken
curl -sS -m 120 -H 'Content-Type: application/json' -d '{"prompt": "Once upon a time", "max_tokens": 400, "ignore_eos": true}' \
  -o "$capture/last" "$url/v1/completions" &
pid=$!
while [ "$(metric slots_busy)" = 0 ]; do kill -0 $pid 2> /dev/null || break; done
stop 0
wait $pid || die "the last client was not answered"
grep -q '"completion_tokens":400' "$capture/last" || die "the last answer is $(cat "$capture/last")"
! curl -sS -m 5 "$url/health" > /dev/null 2>&1 || die "the server is still there"

# a key; the environment's too
GPTVQ_API_KEY=geheim start --ctx 64 --queue 2
refused 401 'API key is missing or wrong' /v1/models
refused 401 'API key is missing or wrong' /v1/models '' -H 'Authorization: Bearer geheimnis'
refused 401 'API key is missing or wrong' /v1/models '' -H 'Authorization: Bearer gehei'
refused 401 'API key is missing or wrong' /v1/models '' -H 'Authorization: Bearer '
refused 401 'API key is missing or wrong' /metrics
ask 200 /health
ask 200 /
ask 200 /v1/models '' -H 'Authorization: Bearer geheim'
refused 400 'more than 2 answers' /v1/completions '{"prompt": ["a", "b", "c"]}' -H 'Authorization: Bearer geheim'
stop 0

# other pages, when they may
start --cors https://chat.example --ctx 64
ask 204 /v1/chat/completions '' -X OPTIONS -H 'Origin: https://chat.example' -D "$capture/head"
grep -q '^Access-Control-Allow-Origin: https://chat.example' "$capture/head" || die "the page is not told: $(cat "$capture/head")"
refused 403 'may not use this server' /v1/models '' -H 'Origin: https://other.example'
# two servers do not share a port
port=${url##*:}
expect_fail 3 "cannot listen at 127.0.0.1, port $port: Address already in use \(--port N" "$GPTVQ" serve "$model" --port "$port" --template "$capture/joined.jinja"
stop 0

expect_fail 3 'nowhere does not exist' "$GPTVQ" serve nowhere
expect_fail 2 'not an address of this machine' "$GPTVQ" serve "$model" --host example.com --template "$capture/joined.jinja"
expect_fail 2 'option --port: 70000 is out of range' "$GPTVQ" serve "$model" --port 70000
expect_fail 3 'nothing\.jinja' "$GPTVQ" serve "$model" --template nothing.jinja --port 0
# without a template there are completions alone
rm -f "$capture/url"
"$GPTVQ" serve "$model" --port 0 > "$capture/url" 2> "$capture/log" &
server=$!
while [ ! -s "$capture/url" ]; do kill -0 $server || die "no server: $(cat "$capture/log")"; sleep 0.1; done
url=$(cat "$capture/url")
grep -q 'warning: no chats, only completions: .*no chat template' "$capture/log" || die "no warning: $(cat "$capture/log")"
refused 400 'no_chat_template' /v1/chat/completions '{"messages": [{"role": "user", "content": "a"}]}'
stop 0
