# A device with little memory: rows in smaller pieces and sums on the host give the same bytes, and one line says so; too little is exit code 7.
. "$SOURCE/tests/cli/lib.sh"

[ -n "${FAKES:-}" ] || exit 0 # a sanitizer, another machine, or no C++ compiler
"$GPTVQ" bench make-model -o one --shape stories --layers 1 --dense --quiet
cp "$model"/tokenizer* one
# on_shim BYTES OUT
on_shim() {
  GPTVQ_SHIM_BYTES=$1 "$GPTVQ" quantize one -o "$2" --method gptq --index-bits 4 --group-size 128 --calib "$SOURCE/examples/text/calib.txt" --calib-self 0 \
    --calib-samples 8 --calib-length 256 --judge-tokens 0 --calib-compute bf16 --device shim --quiet
}
warning='^gptvq: warning: shim has too little memory for the best way'
expect_ok on_shim 64000000 whole
[ ! -s "$capture/err" ] || die "a line of memory that suffices"
# Weights of two versions of the block and a window take 6 MB while windows pass; sums and inputs of the down projection 4.7 for its Hessian, 3.1 for what they are
# made of, and 3.9 for the mismatch. Its H takes 2.4 and its factorisation 4.7, when the former are done with. 17 MB are enough for all, 13 are not for what has to be.
expect_ok on_shim 15000000 crowded
[ "$(grep -cE "$warning" "$capture/err")" = 1 ] || die "little memory is not said once"
[ "$(wc -l < "$capture/err")" = 1 ] || die "little memory is more than one line"
for file in $(lasting whole); do cmp "$file" "crowded/$(basename "$file")" || die "$file differs with little memory"; done
run on_shim 9000000 short
[ "$code" = 7 ] || die "exit code $code of a device that is too small"
expect_err "^gptvq: error: device 'shim': [0-9]+ bytes do not fit, [0-9]+ are free"
[ ! -e short ] || die "a device that is too small left a folder"
