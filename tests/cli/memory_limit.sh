# --memory-limit: kept, with the same output as without; what cannot be is one line and leaves nothing.
. "$SOURCE/tests/cli/lib.sh"

quantize() {
  "$GPTVQ" quantize "$model" --calib "$SOURCE/examples/text/calib.txt" --calib-samples 96 --calib-length 256 --method gptq --nominal --bits 3.125 \
    --calib-self 0 --judge-tokens 0 --threads 2 "$@"
}
expect_fail 2 "option --memory-limit: '20X' is not a number of bytes: give one like 20G" quantize -o x --memory-limit 20X
expect_fail 2 'option --memory-limit: 1K is out of range' quantize -o x --memory-limit 1K
expect_fail 2 '8 MB \(--memory-limit\) are not enough: .* this takes [0-9]+ MB; give as many, or turn off --mismatch' \
  quantize -o x --memory-limit 8M
expect_fail 2 'are not enough: .*; give as many$' "$GPTVQ" quantize "$model" -o x --method rtn --bits 3.125 --memory-limit 1M
expect_fail 2 'give as many, or leave embedding and head as they are \(--embedding-bits, --head-bits 16\)$' \
  "$GPTVQ" quantize "$model" -o x --method rtn --bits 3.125 --embedding-bits 8 --memory-limit 1M

expect_ok quantize -o plain --json
cp "$capture/out" "$capture/report"
! grep -q 'scratch' "$capture/err" || die "activations on disk although there is room"
peak=$(json peak_bytes)
# a quarter more than what it takes with the activations on disk (two streams of 96 x 256 x 256 numbers of 16 or 32 bits)
expect_ok quantize -o plain --dry-run --force --json
limit=$(($(json least_bytes) * 5 / 4))
cp "$capture/report" "$capture/out"
if [ -z "${SANITIZE:-}" ]; then # whose shadow memory is no part of the plan
  near "$(json estimated_peak_bytes)" "$peak" 0.15
  expect_ok quantize -o tight --json --memory-limit $limit
  expect_err 'calibration activations lie in scratch files in tight.partial'
  [ "$(json peak_bytes)" -le $limit ] || die "$(json peak_bytes) bytes at the peak, the limit is $limit"
  near "$(json estimated_peak_bytes)" "$(json peak_bytes)" 0.25 # 50 MB are mostly libraries and JSON
  diff -r -x gptvq.json plain tight || die "another output under a limit"
  [ ! -e tight.partial ] || die "a scratch file is left"

  # the default, whose gradients take most
  default() {
    "$GPTVQ" quantize "$model" -o default --force --calib "$SOURCE/examples/text/calib.txt" --calib-samples 8 --calib-length 1024 --calib-self 0 --judge-tokens 0 \
      --em-iterations 2 --reassign-rounds 0 --threads 2 --json "$@"
  }
  expect_ok default --dry-run
  least=$(json least_bytes)
  expect_ok default --memory-limit $((least * 11 / 10))
  [ "$(json peak_bytes)" -le $((least * 11 / 10)) ] || die "the default: $(json peak_bytes) bytes at the peak, the limit is $((least * 11 / 10))"
  expect_fail 2 'give as many, or give all layers equal sizes \(--allocate uniform\)' default --memory-limit $((least * 9 / 10))

  # fine-tuning of the model, which takes most here: the estimate is what it takes, and the same model for 1 and 2 threads
  tuned() {
    "$GPTVQ" quantize "$model" --calib "$SOURCE/examples/text/calib.txt" --calib-samples 16 --calib-length 256 --method gptq --nominal --bits 3.125 \
      --calib-self 0 --judge-tokens 0 --finetune-steps 2 --finetune-batch 16 --finetune-rate 0.0005 --json "$@"
  }
  expect_ok tuned -o untuned --threads 1 --finetune-steps 0
  rest=$(json peak_bytes)
  expect_ok tuned -o tuned-1 --threads 1
  near "$(json estimated_peak_bytes)" "$(json peak_bytes)" 0.1
  more=$(json peak_bytes)
  [ "$more" -gt $((rest * 3 / 2)) ] || die "fine-tuning takes $more bytes, all else $rest: it is not what is measured"
  awk -v a="$(json finetune_after)" -v b="$(json finetune_before)" 'BEGIN {exit !(a < b)}' || die "nothing was gained"
  expect_ok tuned -o tuned-2 --threads 2
  diff -r -x gptvq.json tuned-1 tuned-2 || die "another model with two threads"
  expect_fail 2 'give as many, or leave out fine-tuning of the model \(--finetune-steps 0\)' tuned -o x --memory-limit $((more * 9 / 10))

  # no room for the scratch file: a file-size limit
  limited() { (ulimit -f 2048 && exec "$GPTVQ" quantize "$@"); }
  expect_fail 3 'the scratch file of calibration activations in full.partial \(0.0 GB\): (File too large|No space left).*--memory-limit' \
    limited "$model" -o full --calib "$SOURCE/examples/text/calib.txt" --calib-samples 96 --calib-length 256 --method gptq --nominal --bits 3.125 \
    --threads 2 --quiet --memory-limit $limit
fi
