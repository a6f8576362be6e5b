# A card that is lost in the middle of a run: exit code 1 and one line; what was finished stays as it is, and --resume goes on with the CPU and with a card.
. "$SOURCE/tests/cli/lib.sh"

[ -n "${FAKES:-}" ] || exit 0 # a sanitizer, another machine, or no C++ compiler
"$GPTVQ" bench make-model -o two --shape stories --layers 2 --dense --quiet
cp "$model"/tokenizer* two
# fp32: what the CPU and a card go on with alike
on_card() {
  LD_LIBRARY_PATH="$FAKES/whole" "$GPTVQ" quantize two --method gptq --index-bits 4 --group-size 128 --calib "$SOURCE/examples/text/calib.txt" --calib-self 0 \
    --calib-samples 4 --calib-length 256 --judge-tokens 0 --calib-compute fp32 --quiet "$@"
}
run on_card -o whole --device cuda
[ "$code" = 0 ] || { expect_err 'built without nvcc'; exit 0; }

first=model-00001-of-00003.safetensors
export FAKE_LOST_BY=lost.partial/$first
run on_card -o lost --device cuda
unset FAKE_LOST_BY
[ "$code" = 1 ] || die "exit code $code of a lost card"
[ "$(wc -l < "$capture/err")" = 1 ] || die "a lost card is more than one line"
expect_err '^gptvq: error: (.*: )?the card failed \(.*\): CUDA error 719, CUDA_ERROR_LAUNCH_FAILED; --resume goes on after the last finished block, with --device cpu too$'
[ ! -e lost ] || die "a lost card left a folder"
[ "$(ls lost.partial/*.safetensors)" = lost.partial/$first ] || die "not one block was finished: $(ls lost.partial)"
cmp lost.partial/$first whole/$first || die "what was finished is not an undisturbed run's"
cp -r lost.partial other.partial

expect_ok on_card -o lost --resume --device cuda
for file in $(lasting whole); do cmp "$file" "lost/$(basename "$file")" || die "$file differs after --resume"; done
expect_ok on_card -o other --resume --device cpu
cmp whole/$first other/$first || die "the CPU changed what was finished"
"$GPTVQ" inspect other > "$capture/out" || die "what the CPU went on with is no model"
