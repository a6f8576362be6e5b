# Embedding and output head of less than 16 bits: sizes, what is refused, the packed folder through the commands, resume.
. "$SOURCE/tests/cli/lib.sh"

expect_fail 2 '--embedding-bits 9 is not possible: choose 3 to 8, or 16' "$GPTVQ" quantize "$model" -o x --embedding-bits 9
expect_fail 2 'option --embedding-bits: 2 is out of range, 3 to 16' "$GPTVQ" quantize "$model" -o x --embedding-bits 2
expect_fail 2 '--head-bits 12 is not possible: choose 3 to 8, or 16' "$GPTVQ" quantize "$model" -o x --head-bits 12
tied=$SOURCE/tests/golden/model/llama-tied
expect_fail 2 '--embedding-bits 4 and --head-bits 8: embedding and output head of this model are one matrix' \
  "$GPTVQ" quantize "$tied" -o x --method rtn --bits 4.5 --embedding-bits 4 --head-bits 8 --quiet

# 1024 x 256: 4 bits a code, 16 + 4 for every 64 columns; 8 bits with a scale and a zero point for 256
options="--method gptq --bits 4.25 --calib $SOURCE/examples/text/calib.txt --calib-samples 2 --calib-length 128 --judge-tokens 0 --calib-self 0 --quiet"
# shellcheck disable=SC2086
{
  expect_ok "$GPTVQ" quantize "$model" -o small $options --embedding-bits 4 --head-bits 5 --threads 1 --json
  expect_ok "$GPTVQ" quantize "$model" -o again $options --embedding-bits 4 --head-bits 5 --threads 3
  for file in small/*.safetensors; do cmp "$file" "again/$(basename "$file")" || die "other bytes from three threads"; done
}
expect_ok "$GPTVQ" inspect small
expect_out '^packed         model\.embed_tokens, 1024 x 256, 141312 bytes, 4\.3125 bits per value: the embedding$'
expect_out '^packed         lm_head, 1024 x 256, 174592 bytes, 5\.3281 bits per value: the output head$'
expect_ok "$GPTVQ" inspect small --json
[ "$(json verified)" = true ] || die "the sums do not agree"
grep -q '"embedding_bits": 4' small/config.json || die "config.json does not say how the embedding is stored"

expect_ok "$GPTVQ" compare "$model" small --text "$text" --ctx 128 --max-windows 4 --json --quiet
perplexity=$(json perplexity_b)
awk -v a="$(json perplexity_a)" -v b="$perplexity" 'BEGIN {exit !(b > 0.97 * a && b < 1.4 * a)}' || die "perplexity $perplexity"
for precision in fp32 bf16 int8; do
  expect_ok "$GPTVQ" eval small --text "$text" --ctx 128 --max-windows 4 --json --quiet --compute $precision
  near "$(json perplexity)" "$perplexity" 1e-2
done
expect_ok "$GPTVQ" generate small -p "One day" -n 8 --temp 0 --quiet
expect_ok "$GPTVQ" export small -o exported --format hf
expect_ok "$GPTVQ" eval exported --text "$text" --ctx 128 --max-windows 4 --json --quiet
near "$(json perplexity)" "$perplexity" 1e-2
expect_ok "$GPTVQ" export small -o small.gguf --format gguf --type f16 --quiet
expect_ok "$GPTVQ" eval small.gguf --text "$text" --ctx 128 --max-windows 4 --json --quiet --compute fp32
near "$(json perplexity)" "$perplexity" 1e-2

# the codes of the head are used as they are stored
expect_fail 2 'the output head is stored with 5 bits: it cannot be used with 16' "$GPTVQ" eval small --text "$text" --head-bits 16

# the budget of the whole model is kept by its files, whatever chooses
files_of() { cat "$1"/*.safetensors | wc -c | tr -d ' '; }
budget() { # budget B PARAMETERS MODEL OPTIONS…: at least 90 % of it is used
  bits=$1 parameters=$2 of=$3
  shift 3
  expect_ok "$GPTVQ" quantize "$of" -o budget --model-bits "$bits" "$@" --quiet --force
  awk -v f="$(files_of budget)" -v b="$bits" -v p="$parameters" 'BEGIN {x = 8 * f / p; exit !(x <= b && x > 0.9 * b)}' ||
    die "$(files_of budget) bytes of files for $bits bits and $parameters parameters"
}
for bits in 3 4.1 6; do budget $bits 3672320 "$model" --method kmeans --em-iterations 1; done
budget 4.5 3672320 "$model" --method rtn --embedding-bits 8
grep -q '"embedding_bits": 8' budget/config.json || die "the embedding's bits are not those that were given"
expect_ok "$GPTVQ" quantize "$model" --dry-run --model-bits 3 --method kmeans --head-bits 8
expect_out '^sizes +[a-z]+, [0-9.]+ bits per weight, embedding [3-8], output head 8$'
# the code of the less predicted loss, where none is given; vectors where no trellis is small enough
expect_ok "$GPTVQ" quantize "$model" --dry-run --model-bits 3.5 --json
[ "$(json format)" = trellis ] || die "$(json format) of $(json bits) bits for a budget that a trellis of 3 fits"
expect_ok "$GPTVQ" quantize "$model" --dry-run --model-bits 3.5 --dim 2 --json
[ "$(json format)" = vq ] || die "$(json format) though vectors were asked for"
expect_ok "$GPTVQ" quantize "$model" --dry-run --model-bits 2 --json
[ "$(json format)" = vq ] || die "$(json format) of $(json bits) bits for a budget of 2"
# the time of a plan has the work on the head: 2 · 1024 · 256² operations for its power, which GPTQ's layers do not have
expect_ok "$GPTVQ" quantize "$model" --dry-run --method gptq --bits 4.25 --json
! grep -q '"loop"' "$capture/out" || die "a loop of layers that have none"
expect_ok "$GPTVQ" quantize "$model" --dry-run --method gptq --bits 4.25 --head-bits 4 --json
grep -A 2 '"loop"' "$capture/out" | grep -q '"flop": 134217728' || die "no work on the head in the plan"
for option in embedding-bits head-bits; do # 16 that is given is not chosen anew
  expect_ok "$GPTVQ" quantize "$model" --dry-run --model-bits 5 --method rtn --$option 16 --json
  [ "$(json "$(echo $option | tr - _)")" = 16 ] || die "--$option 16 became $(json "$(echo $option | tr - _)")"
done
expect_fail 2 '--model-bits 1.5 is not possible for this model with these bits of embedding and head: the least is [0-9.]+$' \
  "$GPTVQ" quantize "$model" -o x --model-bits 1.5 --method rtn --head-bits 16 --quiet
# layers of several sizes may take all that --bits says, whatever the smallest of them takes
expect_ok "$GPTVQ" quantize "$model" --dry-run --model-bits 4 --code trellis --allocate sensitivity --json
awk -v f="$(json output_bytes)" 'BEGIN {exit !(8 * f <= 4 * 3672320)}' || die "$(json output_bytes) bytes planned for 4 bits per parameter"
expect_ok "$GPTVQ" quantize "$model" --dry-run --method kmeans --code trellis --allocate sensitivity --bits 2.5 --json
near "$(json bits)" "$(awk 'BEGIN {printf "%.9f", 2.03125 + 36 * 272 / 3145728}')" 1e-9
expect_fail 2 '--model-bits 1 is not possible for this model: the least is [0-9.]+$' "$GPTVQ" quantize "$model" -o x --model-bits 1 --method rtn --quiet
expect_fail 2 '--model-bits chooses the sizes of layers' "$GPTVQ" quantize "$model" -o x --model-bits 3 --bits 2

# what neither is given nor follows from the other one: beside a trellis what loses least in a file of that size, 16 beside all else
default() { # default EMBEDDING HEAD MODEL OPTIONS…
  embedding=$1 head=$2 of=$3
  shift 3
  expect_ok "$GPTVQ" quantize "$of" --dry-run --json "$@"
  [ "$(json embedding_bits) $(json head_bits)" = "$embedding $head" ] || die "$*: embedding $(json embedding_bits), head $(json head_bits)"
}
default 4 4 "$model"
default 4 6 "$model" --bits 4.2
default 16 16 "$model" --dim 2
default 4 4 "$tied" --embedding-bits 4 --bits 2.5

# interrupted and resumed; with other bits it is another run
kill_after_block() {
  "$GPTVQ" "$@" > /dev/null 2>&1 &
  for _ in $(seq 600); do
    [ ! -e cut.partial/model-00002-of-00005.safetensors ] || break
    [ ! -e cut ] || break
    sleep 0.05
  done
  kill -9 $! 2> /dev/null || true
  wait $! 2> /dev/null || true
}
# shellcheck disable=SC2086
{
  kill_after_block quantize "$model" -o cut $options --embedding-bits 4 --head-bits 5
  if [ -e cut.partial ]; then
    run "$GPTVQ" quantize "$model" -o cut $options --embedding-bits 5 --head-bits 5 --resume
    [ "$code" = 2 ] && grep -q -- '--embedding-bits was 4, is now 5' "$capture/err" || die "a run with other bits was resumed"
    expect_ok "$GPTVQ" quantize "$model" -o cut $options --embedding-bits 4 --head-bits 5 --resume
  fi
}
for file in small/*.safetensors; do cmp "$file" "cut/$(basename "$file")" || die "other bytes after an interruption"; done
