# Multiple choice: the accuracies that lm-evaluation-harness counts (tests/golden/eval/make_task.py), and files that are no tasks.
. "$SOURCE/tests/cli/lib.sh"

task=$SOURCE/tests/golden/eval/task.jsonl
expected() { sed -n "s/^ \"$1\": \([0-9.]*\),*\$/\1/p" "$SOURCE/tests/golden/eval/task.json"; }
expect_ok "$GPTVQ" eval "$model" --task "$task" --json --quiet
near "$(json accuracy)" "$(expected accuracy)" 1e-9
near "$(json accuracy_norm)" "$(expected accuracy_norm)" 1e-9
[ "$(json questions) $(json cut)" = "60 0" ] || die "wrong counts"
# √(p (1 − p) / (n − 1))
near "$(json accuracy_stderr)" "$(awk -v p="$(expected accuracy)" 'BEGIN {printf "%.12f", sqrt(p * (1 - p) / 59)}')" 1e-8
# whatever the threads; a context too short for some questions leaves their beginnings out
expect_ok "$GPTVQ" eval "$model" --task "$task" --json --quiet --max-windows 12
cp "$capture/out" all.json
expect_ok "$GPTVQ" eval "$model" --task "$task" --json --quiet --max-windows 12 --threads 1
[ "$(json accuracy)" = "$(sed -n 's/^ *"accuracy": \([^,]*\),$/\1/p' all.json)" ] || die "threads matter"
expect_ok "$GPTVQ" eval "$model" --task "$task" --ctx 40 --max-windows 12
expect_err 'warning: [0-9]+ of [0-9]+ choices do not fit 40 tokens'
expect_out '^accuracy +0\.[0-9]{4} ± 0\.[0-9]{4}$'
expect_out '^questions +12 with [0-9]+ choices$'

# numbers, letters, texts, empty lines, no question at all, spaces before the choice
cat > q.jsonl << 'END'
{"question": "Once upon a", "choices": ["time", "banana", "purple car"], "answer": 0}
{"question": "Once upon a ", "choices": ["banana", "time"], "answer": "B"}

{"question": "She loved to play with her", "choices": ["would", "toys"], "answer": "toys"}
{"question": "", "choices": ["Once upon a time", "zzzz"], "answer": 0, "more": [1]}
END
expect_ok "$GPTVQ" eval "$model" --task q.jsonl --json --quiet
[ "$(json accuracy) $(json questions) $(json choices)" = "1.0 4 9" ] || die "wrong answers: $(cat "$capture/out")"
expect_ok sh -c '"$0" eval "$1" --task - --max-windows 2 --json --quiet < q.jsonl' "$GPTVQ" "$model" 
[ "$(json questions)" = 2 ] || die "not the first two"

printf '{"question": "a", "choices": ["b", "c"], "answer": 0}\n{"question": \n' > bad.jsonl
expect_fail 8 'bad\.jsonl: line 2: not valid JSON' "$GPTVQ" eval "$model" --task bad.jsonl
printf '[1]\n' > bad.jsonl
expect_fail 8 'bad\.jsonl: line 1: (not valid|a question is)' "$GPTVQ" eval "$model" --task bad.jsonl
printf '{"question": "a", "choices": ["b"], "answer": 0}\n' > bad.jsonl
expect_fail 8 'bad\.jsonl: line 1: a question is' "$GPTVQ" eval "$model" --task bad.jsonl
printf '{"question": "a", "choices": ["b", 3], "answer": 0}\n' > bad.jsonl
expect_fail 8 'bad\.jsonl: line 1: a question is' "$GPTVQ" eval "$model" --task bad.jsonl
for answer in 2 -1 '"C"' '"d"' null '[]'; do
  printf '{"question": "a", "choices": ["b", "c"], "answer": %s}\n' "$answer" > bad.jsonl
  expect_fail 8 'bad\.jsonl: line 1: "answer" is none of the choices' "$GPTVQ" eval "$model" --task bad.jsonl
done
printf '\n \n' > bad.jsonl
expect_fail 8 'bad\.jsonl: there are no questions' "$GPTVQ" eval "$model" --task bad.jsonl
awk 'BEGIN {printf "{\"question\": \"a\", \"choices\": [\"b\", \""; for (i = 0; i < 50; i++) printf "word %d ", i; print "\"], \"answer\": 0}"}' > bad.jsonl
expect_fail 8 'bad\.jsonl: line 1: a choice of [0-9]+ tokens: more than the context of 16' "$GPTVQ" eval "$model" --task bad.jsonl --ctx 16
expect_fail 2 'give one of them' "$GPTVQ" eval "$model" --task q.jsonl --text q.jsonl
expect_fail 2 'score-from is for --text' "$GPTVQ" eval "$model" --task q.jsonl --score-from 3
expect_fail 3 'nothing\.jsonl' "$GPTVQ" eval "$model" --task nothing.jsonl
expect_fail 2 'unknown option --task' "$GPTVQ" compare "$model" "$model" --task q.jsonl
