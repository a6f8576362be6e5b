# Too little memory is exit code 7 and one line, or it is enough: then the output is what it always is. Every allocation of a command
# fails in turn (tests/memory/fail_malloc.c), once alone and once with all that follow; then the address space is limited.
# MEMORY_STEP=1 tries every allocation (minutes); without it as many as fit in a few seconds.
. "$SOURCE/tests/cli/lib.sh"

export FAIL_AT FAIL_ON
tiny=$SOURCE/tests/golden/model/llama-sharded

# A tokenizer of 64 tokens that needs every part: normalizer, regular expressions, an added token, a template.
mkdir source
cp "$tiny"/config.json "$tiny"/model* source/
awk 'BEGIN {
  printf "{\"added_tokens\": [{\"id\": 1, \"content\": \"<s>\", \"special\": true}],\n"
  printf "\"normalizer\": {\"type\": \"NFKC\"},\n"
  printf "\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\p{Lu}?\\\\p{Ll}+| ?[^\\\\s\\\\p{L}]+|\\\\s+\"}, \"behavior\": \"Isolated\"},\n"
  printf "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, {\"Sequence\": {\"id\": \"A\"}}],"
  printf " \"special_tokens\": {\"<s>\": {\"ids\": [1]}}},\n\"decoder\": {\"type\": \"Fuse\"},\n"
  printf "\"model\": {\"type\": \"BPE\", \"unk_token\": \"<unk>\", \"vocab\": {\"<unk>\": 0, \"<s>\": 1, \"</s>\": 2, \" \": 3, \".\": 4, \"th\": 5, \"the\": 6"
  for (i = 0; i < 26; i++) printf ", \"%c\": %d", 97 + i, 7 + i
  for (i = 0; i < 26; i++) printf ", \"%c\": %d", 65 + i, 33 + i
  printf "}, \"merges\": [\"t h\", \"th e\"]}}\n" }' < /dev/null > source/tokenizer.json
printf '{"bos_token": "<s>", "eos_token": "</s>", "model_max_length": 1000000000000000019884624838656}\n' > source/tokenizer_config.json
printf '%s\n' "{% set t = messages | map(attribute='content') | join('.') | lower %}{{ bos_token ~ t.split() | sort | join(' ') }}" > chat.jinja
# words without a warning: they hardly repeat
awk 'BEGIN { x = 1; for (i = 0; i < 400; i++) { word = ""; for (j = 0; j < 5; j++) { x = (x * 1103 + 12345) % 65536; word = word substr("etaoinshrdlucmfwypvbgkqjxz", 1 + int(x / 2521), 1) }
  printf "%s%s", (i % 9 == 0 ? "The " : ""), word (i % 9 == 8 ? ". " : " ") } }' < /dev/null > text.txt
expect_ok "$GPTVQ" quantize source -o packed --method rtn --bits 2.5 --quiet

# left: what a command left in the folder `work`, with its sums
left() { (cd work && find . -type f ! -name gptvq.json -exec cksum {} + && find .) | sort; } # gptvq.json has times in it

# sweep STEP COMMAND…: in an empty folder `work`
sweep() {
  step=${MEMORY_STEP:-$1}
  shift
  rm -rf work && mkdir work
  FAIL_AT=0 FAIL_ON=0
  run env LD_PRELOAD="$FAIL_MALLOC" FAIL_COUNT="$capture/count" "$@"
  [ "$code" = 0 ] || die "exit code $code without any failure: $*"
  grep -v '^time \|^peak memory ' "$capture/out" > "$capture/good" || true
  left > "$capture/good-left"
  count=$(cat "$capture/count")
  for FAIL_ON in 0 1; do
    FAIL_AT=1
    while [ "$FAIL_AT" -le "$count" ]; do
      rm -rf work && mkdir work
      run timeout -k 1 60 env LD_PRELOAD="$FAIL_MALLOC" "$@"
      case $code in
        0)
          grep -q '^gptvq: warning: work/out is complete, but the report lacks sizes' "$capture/err" || # which it shows less of
            grep -v '^time \|^peak memory ' "$capture/out" | cmp -s - "$capture/good" || die "another output with FAIL_AT=$FAIL_AT FAIL_ON=$FAIL_ON: $*"
          left > "$capture/now-left"
          cmp -s "$capture/now-left" "$capture/good-left" || die "other files with FAIL_AT=$FAIL_AT FAIL_ON=$FAIL_ON: $*" ;;
        7)
          [ "$(grep -c . "$capture/err")" = 1 ] && grep -q '^gptvq: error: ' "$capture/err" ||
            die "not one error line with FAIL_AT=$FAIL_AT FAIL_ON=$FAIL_ON: $*"
          if [ -e work/out.partial/resume.json ]; then # what a quantization had finished: it must be of use
            [ -z "$(find work -name '*.tmp.*')" ] || die "a temporary file is left with FAIL_AT=$FAIL_AT FAIL_ON=$FAIL_ON: $*"
            expect_ok "$@" --resume
            left > "$capture/now-left"
            cmp -s "$capture/now-left" "$capture/good-left" || die "other files after --resume, FAIL_AT=$FAIL_AT FAIL_ON=$FAIL_ON: $*"
            rm -rf work/out
          fi
          [ "$(find work)" = work ] || die "left something behind with FAIL_AT=$FAIL_AT FAIL_ON=$FAIL_ON: $(find work) $*" ;;
        *) die "exit code $code with FAIL_AT=$FAIL_AT FAIL_ON=$FAIL_ON: $*" ;;
      esac
      FAIL_AT=$((FAIL_AT + step))
    done
  done
  echo "$count allocations, every $step: $*"
}

if [ -n "${FAIL_MALLOC:-}" ]; then
  sweep 87 "$GPTVQ" inspect source
  sweep 311 "$GPTVQ" inspect packed --json
  sweep 23 "$GPTVQ" tokenize source --text text.txt --json
  sweep 341 "$GPTVQ" export packed -o work/out --quiet
  sweep 263 "$GPTVQ" eval packed --text text.txt --ctx 32 --max-windows 4 --threads 2 --quiet
  sweep 277 "$GPTVQ" generate packed -p 'The theme' -n 4 --temp 0 --ignore-eos --threads 2 --quiet
  sweep 277 "$GPTVQ" chat packed --template chat.jinja -p 'The theme' -n 4 --temp 0 --ctx 64 --threads 2 --quiet
  sweep 2399 "$GPTVQ" quantize source -o work/out --method rtn --bits 2.5 --threads 2 --quiet
  sweep 2593 "$GPTVQ" quantize source -o work/out --dim 2 --bits 2.25 --group-size 256 --calib text.txt --calib-samples 2 \
    --calib-length 32 --em-iterations 2 --reassign-rounds 1 --threads 2 --quiet
else
  echo "skipped: allocations do not fail here (sanitizers have their own, programs of another machine run through an emulator)"
fi

# Little address space, with two threads: never a hang, never another code. Below what the loader needs for the libraries it says so
# itself, with code 127.
if [ -n "${SANITIZE:-}" ]; then
  echo "skipped: sanitizers need terabytes of address space"
  exit 0
fi
limited() { # KILOBYTES COMMAND…
  kilobytes=$1
  shift
  run sh -c 'ulimit -v "$0" && exec timeout -k 1 60 "$@"' "$kilobytes" "$@"
  case $code in
    0) enough=$((enough + 1)) ;;
    7)
      little=$((little + 1))
      [ "$(grep -c . "$capture/err")" = 1 ] && grep -q '^gptvq: error: ' "$capture/err" ||
        die "not one error line with $kilobytes KB: $*" ;;
    127) grep -q 'error while loading shared libraries' "$capture/err" || die "exit code 127 with $kilobytes KB: $*" ;;
    *) die "exit code $code with $kilobytes KB: $*" ;;
  esac
  rm -rf work && mkdir work
}
enough=0 little=0
for kilobytes in 30000 100000 110000 120000 200000 300000 350000 400000 500000 700000; do
  limited $kilobytes "$GPTVQ" inspect packed
  limited $kilobytes "$GPTVQ" tokenize source --text text.txt
  limited $kilobytes "$GPTVQ" eval packed --text text.txt --ctx 32 --max-windows 2 --threads 2 --quiet
  limited $kilobytes "$GPTVQ" generate packed -p 'The theme' -n 4 --temp 0 --threads 2 --quiet
  limited $kilobytes "$GPTVQ" quantize source -o work/out --method rtn --bits 2.5 --threads 2 --quiet
done
[ $enough -gt 20 ] && [ $little -gt 10 ] || die "$enough runs had enough memory, $little too little: the limits say nothing"
