# Ctrl-C and kill: exit code 130, nothing that looks finished, and --resume ends with the bytes of an undisturbed run.
. "$SOURCE/tests/cli/lib.sh"

options="--dim 2 --bits 2.25 --calib $SOURCE/examples/text/calib.txt --calib-samples 2 --calib-length 128 --em-iterations 4 --reassign-rounds 1 --quiet"
# shellcheck disable=SC2086
expect_ok "$GPTVQ" quantize "$model" -o whole $options

# start OUT: in the background until the first block is on disk, then signal $2
interrupted() {
  # shellcheck disable=SC2086
  "$GPTVQ" quantize "$model" -o "$1" $options > "$capture/out" 2> "$capture/err" &
  pid=$!
  tries=0
  while [ "$(find "$1.partial" -name '*.safetensors' 2> /dev/null | wc -l)" = 0 ] && kill -0 $pid 2> /dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || die "no block was finished in a minute"
    sleep 0.1
  done
  kill "-$2" $pid 2> /dev/null || true
  code=0
  wait $pid || code=$?
  [ "$code" = "$3" ] || die "exit code $code after $2, expected $3"
  [ ! -e "$1" ] || die "an interrupted run left $1"
}
interrupted stopped INT 130
expect_err '^gptvq: error: stopped on request.*--resume'
# shellcheck disable=SC2086
expect_ok "$GPTVQ" quantize "$model" -o stopped $options --resume --json
[ "$(json blocks_resumed)" -gt 0 ] || die "nothing was resumed"
interrupted killed KILL 137
# other options are another run: refused, and the work stays
# shellcheck disable=SC2086
run "$GPTVQ" quantize "$model" -o killed $options --resume --seed 99
[ "$code" != 0 ] || die "resumed with another seed"
# shellcheck disable=SC2086
expect_ok "$GPTVQ" quantize "$model" -o killed $options --resume --threads 1
for folder in stopped killed; do
  for file in $(lasting whole); do
    cmp "$file" "$folder/$(basename "$file")" || die "$folder: $file differs after --resume"
  done
  [ "$(ls -A whole)" = "$(ls -A $folder)" ] || die "$folder has other files than an undisturbed run"
  [ ! -e $folder.partial ] || die "$folder.partial is left"
done

# a stopped generation keeps what was printed
"$GPTVQ" generate "$model" -p 'Once upon a time' -n 2000 --temp 0 --ignore-eos --threads 1 > "$capture/out" 2> "$capture/err" &
pid=$!
sleep 0.3
kill -INT $pid 2> /dev/null || true
code=0
wait $pid || code=$?
case $code in 0 | 130) ;; *) die "exit code $code of an interrupted generation" ;; esac
grep -q '^Once upon a time' "$capture/out" || die "the text is lost"

# hung AT PATTERN COMMAND…: allocation AT never comes back, as in a library that tries for ever; one Ctrl-C ends that all the same
hung() {
  at=$1 pattern=$2
  shift 2
  rm -f "$capture/count"
  LD_PRELOAD="$FAIL_MALLOC" FAIL_AT=$at FAIL_ON=never FAIL_COUNT="$capture/count" "$@" > "$capture/out" 2> "$capture/err" &
  pid=$!
  tries=0
  while [ ! -e "$capture/count" ]; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] && kill -0 $pid 2> /dev/null || die "allocation $at was not made: $*"
    sleep 0.1
  done
  kill -INT $pid
  tries=0
  while kill -0 $pid 2> /dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { kill -KILL $pid; die "Ctrl-C does not end $*"; }
    sleep 0.1
  done
  code=0
  wait $pid || code=$?
  [ "$code" = 130 ] || die "exit code $code, expected 130: $*"
  [ "$(grep -c '^gptvq: error: ' "$capture/err")" = 1 ] || die "expected one error line: $*"
  expect_err "$pattern"
}
if [ -n "${FAIL_MALLOC:-}" ]; then
  hung 100 '^gptvq: error: stopped on request$' "$GPTVQ" inspect whole
  hung 100 '^gptvq: error: stopped on request$' "$GPTVQ" tokenize whole --text "$text"
  hung 9000 '^gptvq: error: stopped on request$' "$GPTVQ" generate whole -p 'Once upon a time' -n 4 --compute fp32
  # what hears Ctrl-C gets some time to end in order
  # shellcheck disable=SC2086
  hung 15000 '^gptvq: error: stopped on request, in the middle of a step' "$GPTVQ" quantize "$model" -o hung $options
  rm -rf hung.partial
fi
