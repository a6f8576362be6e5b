# SIGKILL at any step of a run: the next one goes on (--resume) or starts over (--force) and ends with the bytes of an undisturbed run.
# The whole sweep, every step: KILL_STRIDE=1 (minutes).
. "$SOURCE/tests/cli/lib.sh"
[ -n "${FAULTS:-}" ] || exit 0
stride=${KILL_STRIDE:-0}

cp -r "$SOURCE/tests/golden/model/llama" tiny && chmod -R u+w tiny && rm tiny/golden.bin
echo '{"bos_token_id": 1}' > tiny/generation_config.json
gptvq="--dim 2 --bits 3 --group-size 256 --calib self --calib-samples 2 --calib-length 8 --em-iterations 2 --reassign-rounds 0"

same() { # same FOLDER EXPECTED WHAT
  [ "$(ls -A "$1")" = "$(ls -A "$2")" ] || die "$3: other files: $(ls -A "$1" | tr '\n' ' ')"
  for file in $(lasting "$2"); do cmp -s "$file" "$1/$(basename "$file")" || die "$3: $1/$(basename "$file") differs"; done
  [ ! -e "$1.partial" ] && [ ! -e "$1.replaced" ] || die "$3: something is left beside $1"
}

# sweep NAME STRIDE REPLACES COMMAND…: COMMAND -o out is killed at every STRIDE-th step (a prime: no step is missed for good) and at the
# last ones; then the same with --resume (quantize) and with --force must give what it gives undisturbed. REPLACES: a folder that out is
# before, or "".
sweep() {
  name=$1 every=$2 replaces=$3
  shift 3
  force=""
  [ -z "$replaces" ] || force=--force
  rm -rf out expected
  expect_ok "$@" -o expected
  [ -z "$replaces" ] || cp -r "$replaces" out
  run env LD_PRELOAD="$FAULTS" FAULT_COUNT=count "$@" -o out $force
  [ "$code" = 0 ] || die "$name: exit code $code"
  same out expected "$name"
  steps=$(cat count)
  [ "$steps" -gt 10 ] || die "$name: only $steps steps were counted"
  [ "$stride" = 0 ] || every=$stride
  at=1
  while [ "$at" -le "$steps" ]; do
    for way in --resume --force; do
      [ "$2" = quantize ] || [ $way = --force ] || way="" # an export is not resumed: it starts over by itself
      rm -rf out out.partial out.replaced
      [ -z "$replaces" ] || cp -r "$replaces" out
      run env LD_PRELOAD="$FAULTS" FAULT_KILL="$at" "$@" -o out $force
      [ "$code" = 137 ] || die "$name: exit code $code when killed at step $at of $steps"
      # out is whole at any moment: the old one, the new one, or none
      if [ -e out ] && ! cmp -s out/config.json expected/config.json; then
        [ -n "$replaces" ] && cmp -s out/config.json "$replaces/config.json" || die "$name: out is broken after step $at"
      fi
      again=$force
      [ "$way" = "" ] && [ -e out ] && again=--force
      # shellcheck disable=SC2086
      run "$@" -o out $way $again
      [ "$code" = 0 ] || die "$name: killed at step $at of $steps, then '$way': exit code $code"
      same out expected "$name: killed at step $at of $steps, then '$way'"
    done
    if [ "$at" -lt $((steps - 8)) ] && [ $((at + every)) -gt $((steps - 8)) ]; then at=$((steps - 8)); else at=$((at + every)); fi
    [ "$at" -le $((steps - 8)) ] || every=1
  done
  echo "$name: $steps steps"
}

expect_ok "$GPTVQ" quantize tiny -o old --method rtn --bits 4 --quiet
# shellcheck disable=SC2086
{
  sweep "a new folder" 31 "" "$GPTVQ" quantize tiny $gptvq --quiet
  sweep "a folder replaced" 41 old "$GPTVQ" quantize tiny $gptvq --quiet
  export FAULT_NO_EXCHANGE=1
  sweep "replaced without an exchange" 97 old "$GPTVQ" quantize tiny $gptvq --quiet
  unset FAULT_NO_EXCHANGE
  sweep "fine-tuned" 61 "" "$GPTVQ" quantize tiny $gptvq --finetune-steps 2 --quiet
  sweep "an export" 11 "" "$GPTVQ" export old --quiet
  sweep "an export over a folder" 17 old "$GPTVQ" export old --quiet
  sweep "a random model" 23 "" "$GPTVQ" bench make-model --shape stories --layers 1 --quiet
}
