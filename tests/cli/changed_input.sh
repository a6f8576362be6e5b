# Model files that change while they are in use: cut short (one line, not a bare SIGBUS), or other weights when a run is resumed.
. "$SOURCE/tests/cli/lib.sh"

# cut_short CONDITION COMMAND…: runs in the background; the model file is truncated as soon as CONDITION holds
cut_short() {
  condition=$1
  shift
  copy_model m
  "$@" > "$capture/out" 2> "$capture/err" < /dev/null &
  pid=$!
  until eval "$condition"; do
    kill -0 $pid 2> /dev/null || die "ended before '$condition': $*"
  done
  truncate -s 4096 m/model.safetensors
  code=0
  wait $pid || code=$?
  [ "$code" = 3 ] || die "exit code $code when the model was cut short, expected 3: $*"
  [ "$(grep -c '^gptvq: error: ' "$capture/err")" = 1 ] || die "expected one error line: $*"
  expect_err '^gptvq: error: m/model\.safetensors was cut short, or its disk failed, while it was read$'
  rm -rf m
}
cut_short "grep -q 'm/model\.safetensors' /proc/\$pid/maps 2> /dev/null" "$GPTVQ" eval m --text "$text" --quiet
cut_short "[ -e out.partial/resume.json ]" "$GPTVQ" quantize m -o out --dim 2 --bits 2.25 --calib "$SOURCE/examples/text/calib.txt" --quiet
[ ! -e out ] && [ -e out.partial/resume.json ] || die "what was begun is neither kept nor marked"
copy_model m
expect_ok "$GPTVQ" quantize m -o out --method rtn --bits 3 --quiet # another run takes the place of what was left
rm -rf out

# A run that is killed behind its first block, and a model that changes before it is resumed
[ -n "${FAULTS:-}" ] || exit 0
options="--method rtn --bits 3 --quiet"
# shellcheck disable=SC2086
{
  expect_ok "$GPTVQ" quantize m -o expected $options
  steps=20 # until one block is finished
  until grep -q '"blocks": [1-9]' out.partial/resume.json 2> /dev/null; do
    [ $steps -lt 200 ] || die "no block was finished"
    rm -rf out.partial
    run env LD_PRELOAD="$FAULTS" FAULT_KILL=$steps "$GPTVQ" quantize m -o out $options
    steps=$((steps + 1))
  done
  at=$(($(data_offset m/model.safetensors model.layers.1.mlp.up_proj.weight) + 70001)) # far from both ends
  was=$(od -An -t o1 -j $at -N 1 m/model.safetensors | tr -d ' ')
  poke m/model.safetensors $at '\101'
  [ "$(od -An -t o1 -j $at -N 1 m/model.safetensors | tr -d ' ')" != "$was" ] || die "nothing was changed"
  expect_fail 2 'out.partial cannot be resumed: `model.tensors` was .* same model' "$GPTVQ" quantize m -o out $options --resume
  poke m/model.safetensors $at "\\$was"
  cp m/tokenizer.json kept && echo >> m/tokenizer.json
  expect_fail 2 'out.partial cannot be resumed: .model.side_files. was' "$GPTVQ" quantize m -o out $options --resume
  cp kept m/tokenizer.json

  # a file of somebody else's in the work folder: neither published nor removed, whatever is asked for
  for foreign in notes.txt model.bin .hidden finetuned/mine; do
    mkdir -p out.partial/finetuned
    echo mine > out.partial/$foreign
    for way in "" --resume --force; do
      expect_fail 3 "out.partial/$foreign was not written by gptvq" "$GPTVQ" quantize m -o out $options $way
    done
    expect_fail 3 "out.partial/$foreign was not written by gptvq" "$GPTVQ" export expected -o out --force --quiet
    rm out.partial/$foreign
  done
  rmdir out.partial/finetuned
  # finished blocks are worth more than an export
  expect_fail 3 'out.partial holds [0-9]+ finished blocks' "$GPTVQ" export expected -o out --quiet
  # a state as an earlier version wrote it
  cp out.partial/resume.json kept
  edit out.partial/resume.json 's/"format": [0-9]*/"format": 2/'
  expect_fail 5 'out.partial was begun by gptvq .*, whose runs this version cannot resume.*--force' \
    "$GPTVQ" quantize m -o out $options --resume
  cp -r out.partial old.partial
  mkdir old.partial/transformed && touch old.partial/transformed/model.safetensors # such a version's, too
  expect_ok "$GPTVQ" quantize m -o old $options --force
  [ ! -e old.partial ] && [ ! -e old/transformed ] || die "what an earlier version left is still there"
  cp kept out.partial/resume.json
  expect_ok "$GPTVQ" quantize m -o out $options --resume
  for file in $(lasting expected); do cmp "$file" "out/$(basename "$file")" || die "$file differs after --resume"; done
  [ "$(ls -A out)" = "$(ls -A expected)" ] || die "other files after --resume"

  # the output is there and whole, but cannot be read back for the report: a warning
  rm -rf out
  expect_ok env LD_PRELOAD="$FAULTS" FAULT_UNREADABLE=out "$GPTVQ" quantize m -o out $options
  expect_err '^gptvq: warning: out is complete, but '
  expect_out '^bits per value'
  rm -rf out
  expect_ok env LD_PRELOAD="$FAULTS" FAULT_UNREADABLE=out "$GPTVQ" quantize m -o out $options --json
  [ "$(json tensor_bytes)" = null ] && [ "$(json linear_bytes)" -gt 0 ] || die "wrong report: $(cat "$capture/out")"
}
