# Models of random weights and the speed of a model: folders that the other commands read, sizes as asked for, sane figures.
. "$SOURCE/tests/cli/lib.sh"

expect_ok "$GPTVQ" bench make-model --shape stories --layers 2 --bits 2.25 -o vq
expect_ok "$GPTVQ" bench model vq --prompt 1 --tokens 1 --repeats 1 --json
[ "$(json layers)" = 2 ] || die "not two layers"
expect_ok "$GPTVQ" inspect vq --json
near "$(json bits_per_value)" 2.25 0.03
expect_ok "$GPTVQ" bench make-model --shape stories --layers 1 --dense -o dense
expect_ok "$GPTVQ" bench make-model --shape stories --layers 1 --method gptq --index-bits 4 --group-size 128 -o int4
expect_ok "$GPTVQ" bench make-model --shape stories --layers 1 --dim 4 --bits 2.5 --scale-block 32 -o vq4
expect_ok "$GPTVQ" bench make-model --shape stories --layers 1 --code trellis --bits 3 -o trellis
expect_ok "$GPTVQ" inspect trellis
expect_out 'q_proj +256 x 256 +gptvq trellis 3-bit '
expect_ok "$GPTVQ" bench make-model --shape stories --layers 1 --seed 1 -o again --bits 2.25
expect_ok "$GPTVQ" bench make-model --shape stories --layers 2 -o again --force
cmp vq/model-00002-of-00003.safetensors again/model-00002-of-00003.safetensors || die "the same seed gives other weights"

for name in vq dense int4 vq4 trellis; do
  for compute in fp32 bf16 int8 auto; do
    expect_ok "$GPTVQ" bench model $name --prompt 20 --tokens 3 --repeats 2 --compute $compute --json
    want=$compute
    [ $compute != auto ] || { want=int8; [ $name != dense ] || want='fp32|bf16'; } # bf16 where the processor multiplies it
    json compute | grep -Eqx "$want" || die "$name: computes in $(json compute), not $want"
    awk -v t="$(json median_ms)" -v b="$(json bandwidth_gb_per_s)" 'BEGIN {exit !(t > 0 && b > 0)}' || die "no time was measured"
  done
done
expect_ok "$GPTVQ" bench model vq --prompt 0 --tokens 4 --depth 5 --repeats 1
expect_out '^decoding +1 tokens: least +[0-9.]+ ms, median +[0-9.]+ ms of 4; '
expect_ok "$GPTVQ" bench model vq --prompt 0 --tokens 4 --depth 5 --repeats 1 --batch 3
expect_out '^batch +3 tokens: least +[0-9.]+ ms, median +[0-9.]+ ms of 4; '
# states of delta nets go back to the end of the prompt; where there is none, to the beginning
expect_ok "$GPTVQ" bench model "$SOURCE/tests/golden/model/qwen3_5" --prompt 0 --tokens 4 --depth 5 --repeats 2 --batch 2
expect_ok "$GPTVQ" bench model "$SOURCE/tests/golden/model/qwen3_5" --prompt 0 --tokens 4 --depth 3 --repeats 2
for bits in 8 16; do
  expect_ok "$GPTVQ" bench model vq --prompt 12 --tokens 2 --repeats 1 --head-bits $bits --json
  [ "$(json head_bits)" = $bits ] || die "the head has $(json head_bits) bits, not $bits"
done
expect_fail 2 'output head of 12 bits is not possible' "$GPTVQ" bench model vq --head-bits 12
expect_ok "$GPTVQ" bench --help
expect_out 'bench make-model'

expect_fail 2 'bench what' "$GPTVQ" bench
expect_fail 2 "did you mean model" "$GPTVQ" bench modle
expect_fail 2 'MODEL is missing' "$GPTVQ" bench model
expect_fail 2 'nothing to measure' "$GPTVQ" bench model vq --prompt 0 --tokens 0
expect_fail 2 'give an output folder' "$GPTVQ" bench make-model
expect_fail 2 'is not one of' "$GPTVQ" bench make-model --shape llama-9 -o x
expect_fail 2 'dim 3 is not possible' "$GPTVQ" bench make-model --shape stories --dim 3 -o x
expect_fail 3 'exists; use --force' "$GPTVQ" bench make-model --shape stories -o vq

# the shapes of real models: fused and split layers, biases, tied heads
expect_ok "$GPTVQ" bench make-model --shape smollm2-135m --layers 1 --bits 2.25 -o tied
[ "$(stat -c %s tied/model-00002-of-00002.safetensors)" -lt $((2 * 49152 * 576 + 4096)) ] || die "a tied model stores its head"
! grep -q lm_head tied/model.safetensors.index.json || die "a tied model has a head"
for tensor in qwen2.5-0.5b:q_proj.bias phi-3-mini:gate_up_proj.indices; do
  shape=${tensor%:*}
  expect_ok "$GPTVQ" bench make-model --shape $shape --layers 1 --bits 2.25 -o shape --force
  expect_ok "$GPTVQ" bench model shape --prompt 2 --tokens 1 --repeats 1 --json
  [ "$(json layers)" = 1 ] || die "$shape: not one layer"
  grep -qF "${tensor#*:}" shape/model.safetensors.index.json || die "$shape has no ${tensor#*:}"
done
rm -r tied shape

expect_ok "$GPTVQ" bench memory --rounds 1 --threads 1
expect_out '^1 threads read [0-9.]+ GB/s$'
expect_ok "$GPTVQ" bench memory --rounds 1 --json
awk -v b="$(json bandwidth_gb_per_s)" 'BEGIN {exit !(b > 0)}' || die "no bandwidth was measured"

# the kernels alone: every kernel of each shape, the yardstick first, ratios to it with as many tokens
expect_ok "$GPTVQ" bench kernels --shapes 576,512x768 --rounds 1 --memory 64 --json
expect_out '"kernel": "vq-2d-2.125"'
expect_out '"bandwidth_share_median": [0-9.]'
sed -n 's/.*"kernel": "\([^"]*\)".*/\1/p' "$capture/out" > kernels
[ "$(head -n 1 kernels)" = int4-g128 ] || die "the first kernel is not the yardstick"
[ "$(sort -u kernels | wc -l)" = 41 ] && [ "$(wc -l < kernels)" = 82 ] || die "not every kernel was measured once for each shape"
[ "$(grep -c '"rows": 1536' "$capture/out")" = 41 ] || die "a layer of 576 columns is not SmolLM2's"
[ "$(grep -A 15 '"kernel": "int4-g128' "$capture/out" | grep -c '"int4_ratio": 1.0')" = 8 ] || die "the yardstick is not its own measure"
expect_ok "$GPTVQ" bench kernels --shapes 64x40 --rounds 1 --memory 64 --formats head,4d --tokens 4
[ "$(grep -cE '^(int4-g128|vq-4d-2.25|head-int8)( x4)? .* [0-9]+% .* [0-9.]+$' "$capture/out")" = 6 ] || die "not what was asked for: $(cat "$capture/out")"
expect_out '^head-int8 +[0-9]+%$'
expect_fail 2 'out of range' "$GPTVQ" bench kernels --memory 1
expect_fail 2 'no list of shapes' "$GPTVQ" bench kernels --shapes 576,
expect_fail 2 'no list of shapes' "$GPTVQ" bench kernels --shapes 12x
expect_fail 2 'no list of shapes' "$GPTVQ" bench kernels --shapes 577
expect_fail 2 'do not hold a matrix of 18944 x 3584 as head-int8' "$GPTVQ" bench kernels --shapes 3584 --memory 64

# where the time of quantizing goes: nothing is left, the stages sum up, each precision has its peak
mkdir scratch
TMPDIR=$PWD/scratch expect_ok "$GPTVQ" bench quantize --shape stories --calib-samples 1 --calib-length 64 --threads 1 --json
[ -z "$(ls scratch)" ] || die "left in the temporary folder: $(ls scratch)"
[ "$(json shape) $(json layers) $(json calib_length) $(json threads)" = "stories 1 64 1" ] || die "not what was asked for"
awk -v p="$(json fp32_gflop_per_s)" 'BEGIN {exit !(p > 0)}' || die "no products were measured"
near "$(awk '$1 == "\"cpu_seconds\":" {gsub(",", ""); if (n++) s += $2; else whole = $2} END {print whole / s}' "$capture/out")" 1 0.05
expect_out '"name": "codebook update"'
expect_out '"peak_share": 0\.[0-9]'
awk '$2 == "\"factorisation\"," {on = 1} on && $1 == "\"flop\":" {all = $2} on && $1 == "\"double_flop\":" {found = $2 == all && all + 0 > 0; exit} END {exit !found}' \
  "$capture/out" || die "the factorisation does not work in double"
TMPDIR=$PWD/scratch expect_ok "$GPTVQ" bench quantize --shape stories --calib-samples 1 --calib-length 64 --threads 1 --calib-compute fp32
expect_out '^products reach [0-9.]+ GFLOP/s a thread in fp32.*; calibration in fp32, 1 threads$'
expect_out '^Hessians +[0-9.]+ +[0-9.]+% +[0-9.]+ +[0-9.]+ +[0-9]+%$'
TMPDIR=$PWD/none expect_fail 3 'cannot make temporary folder .*none' "$GPTVQ" bench quantize --shape stories
