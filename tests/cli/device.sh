# --device: what is wrong with a card or its driver is one line before any work, with the right exit code; auto says why it stays on the CPU;
# runs on the shim, and through a driver that stands for NVIDIA's ($FAKES, tests/driver), match the CPU's.
. "$SOURCE/tests/cli/lib.sh"

[ -n "${FAKES:-}" ] || exit 0 # a sanitizer, another machine, or no C++ compiler
options="--method gptq --index-bits 4 --group-size 128 --calib $SOURCE/examples/text/calib.txt --calib-self 0 --calib-samples 4 --calib-length 256 --judge-tokens 0"
# one block of the example's shape, random
"$GPTVQ" bench make-model -o one --shape stories --layers 1 --dense --quiet
cp "$model"/tokenizer* one
# quantize_on FOLDER OUT…: with the libraries of $FAKES/FOLDER
quantize_on() {
  folder=$1
  shift
  # shellcheck disable=SC2086
  env LD_LIBRARY_PATH="$FAKES/$folder" "$GPTVQ" quantize one $options "$@"
}
# refused FOLDER CODE PATTERN [DEVICE]
refused() { expect_fail "$2" "$3" quantize_on "$1" -o out --quiet --device "${4:-cuda}"; }

refused none 5 'no CUDA driver: .*libcuda\.so\.1.*--device cpu'
refused old 5 'driver is too old: it is for CUDA 10\.2, and this program needs 1[1-9]\.0'
refused empty 5 'no CUDA card: the driver finds none'
refused stub 5 'libcuda\.so\.1 is the toolkit.s stub'
refused mismatch 5 'different versions: restart'
refused lacking 5 'libcuda\.so\.1 has no cuLaunchKernel: it is too old, or not NVIDIA.s'
refused no_product 5 'libcublas\.so\.13 has no cublasGemmEx: it is too old'
refused no_inversion 5 'libcusolver\.so\.12 has no cusolverDnXtrtri: it is too old'
refused ancient 5 'card 0, Fake 0, is too old: its compute capability is 7\.5, and 8\.0 is needed'
refused ancient 5 'card 1, Fake 1, is too old' cuda:1
refused whole 5 'no CUDA card 2: the driver finds 2, counted from 0' cuda:2
refused small 7 'Fake 0 has too little memory: 0\.0 of 25\.8 GB are free'
refused no_libraries 5 'libcublas\.so\.13 .*cannot be loaded'
# without nvcc there is nothing to run on a card
kernels=0
run quantize_on whole -o out --quiet --device cuda
if [ "$code" = 0 ]; then kernels=1; else expect_err 'no kernels for cards: it was built without nvcc'; fi
rm -rf out
[ $kernels = 0 ] || refused image 5 'kernels do not run on Fake 0 with this driver'
for device in gpu cuda: cuda:x cpu:0 CUDA; do refused whole 2 "--device '$device' is unknown" $device; done
expect_fail 5 'a plan measures the CPU only: leave --device shim out' quantize_on whole --dry-run --device shim

# eval and compare refuse what quantize refuses
evaluate_on() {
  folder=$1
  shift
  env LD_LIBRARY_PATH="$FAKES/$folder" "$GPTVQ" eval one --text "$text" --ctx 64 --max-windows 2 --json "$@"
}
expect_fail 5 'no CUDA driver: .*--device cpu' evaluate_on none --device cuda
expect_fail 5 'no CUDA card 2' evaluate_on whole --device cuda:2
expect_fail 7 'Fake 0 has too little memory' evaluate_on small --device cuda
expect_fail 5 'no CUDA driver' env LD_LIBRARY_PATH="$FAKES/none" "$GPTVQ" compare one one --text "$text" --device cuda
expect_fail 2 "--device 'gpu' is unknown: choose cpu, cuda, cuda:N, auto or shim" evaluate_on whole --device gpu
expect_fail 2 '--device is for --text' "$GPTVQ" eval one --task "$text" --device shim
# auto is the CPU and its figures; the shim's are near them (tests/unit/test_device_eval.c has how near), and the same again
for how in cpu auto shim; do
  expect_ok evaluate_on none --device $how
  json nll > $how.nll
  case $how in
    cpu) [ ! -s "$capture/err" ] || ! grep -q '^device' "$capture/err" || die "the CPU is said to be a device" ;;
    auto) expect_err '^device: cpu \(.*no CUDA driver' ;;
    shim) expect_err '^device: shim' ;;
  esac
  [ "$(json device)" = "$(echo $how | sed s/auto/cpu/)" ] || die "--device $how is $(json device)"
done
cmp cpu.nll auto.nll || die "auto is not the CPU"
near "$(cat shim.nll)" "$(cat cpu.nll)" 1e-5
expect_ok evaluate_on none --device shim --threads 1
[ "$(json nll)" = "$(cat shim.nll)" ] || die "the shim's loss depends on the number of threads"
expect_ok evaluate_on none --device shim --compute auto
[ "$(json compute)" = bf16 ] || die "auto is $(json compute) on a device"
expect_ok evaluate_on none --device shim --compute int8
expect_err 'the CPU does of the forward passes: int8 products, in 1 of 1 blocks'
if [ $kernels = 1 ]; then
  expect_ok evaluate_on whole --device cuda:1
  [ "$(json device)" = cuda:1 ] || die "evaluated on $(json device)"
  near "$(json nll)" "$(cat cpu.nll)" 1e-5
fi

# auto: the CPU and its bytes, and why
quantize_on none -o plain --quiet > /dev/null 2>&1
for folder in none old small; do
  expect_ok quantize_on $folder -o auto --device auto --force
  expect_err '^device: cpu \(.*(no CUDA driver|too old|too little memory)'
  for file in $(lasting plain); do cmp "$file" "auto/$(basename "$file")" || die "auto is not the CPU: $file"; done
done

# errors FOLDER: of its layers
errors() { "$GPTVQ" inspect "$1" --json | sed -n 's/^ *"error": \([0-9.e-]*\),\{0,1\}$/\1/p'; }
# matches FOLDER CPU: the error of q, k and v of the first block, whose inputs nothing has changed yet, is within 1 % of the CPU's, as is the mean
# over all layers. A later layer is calibrated on the outputs of those before, where a tie may have fallen the other way.
matches() {
  errors "$2" > "$capture/plain"
  errors "$1" > "$capture/other"
  [ "$(wc -l < "$capture/plain")" = 7 ] || die "7 layers have errors"
  paste "$capture/plain" "$capture/other" | awk '{a += $1; b += $2; d = $2 / $1 - 1; if (NR <= 3 && (d < -0.01 || d > 0.01)) bad = 1}
    END {d = b / a - 1; exit bad || d < -0.01 || d > 0.01}' || die "$1: errors differ by more than 1 %"
}
expect_ok quantize_on none -o shim --device shim --json
expect_err '^device: shim'
[ "$(json device)" = shim ] || die "the report names $(json device)"
grep -A 5 '"name": "factorisation"' "$capture/out" | grep -q '"device": "shim"' || die "the factorisation was not on the shim"
for stage in "forward, original" "forward, quantized"; do
  grep -A 5 "\"name\": \"$stage\"" "$capture/out" | grep -q '"device": "shim"' || die "$stage: not on the shim"
done
grep -A 5 '"name": "writing"' "$capture/out" | grep -q '"device": "cpu"' || die "writing was not on the CPU"
matches shim plain
expect_ok quantize_on none -o again --device shim --threads 1 --quiet
for file in $(lasting shim); do cmp "$file" "again/$(basename "$file")" || die "not the same bytes again: $file"; done
expect_out '^  factorisation .* shim +[0-9.]+ % of'
# on_device STAGE: where the report says that it was
on_device() { grep -A 5 "\"name\": \"$1\"" "$capture/out" | sed -n 's/^ *"device": "\([a-z:0-9]*\)",\{0,1\}$/\1/p' | head -n 1; }
# the default, a trellis
trellis() { "$GPTVQ" quantize one --calib self --calib-samples 2 --calib-length 256 --judge-tokens 0 --em-iterations 4 --reassign-rounds 1 "$@"; }
expect_ok trellis -o trellis-cpu --quiet
expect_ok trellis -o trellis --device shim --json
expect_err '^sizes: trellis, '
expect_err 'of the solver: .*of k-means .*of a trellis'
for stage in Hessians k-means loop "codebook update" re-assignment; do
  [ "$(on_device "$stage")" = shim ] || die "$stage of a trellis: $(on_device "$stage"), not the shim"
done
matches trellis trellis-cpu
# calibration in bf16: the device multiplies, the processor need not
expect_ok quantize_on none -o half --device shim --cpu avx2 --json
[ "$(json calib_compute)" = bf16 ] || die "calibration on the shim ran in $(json calib_compute)"
expect_ok quantize_on none -o half --cpu avx2 --json --force
[ "$(json calib_compute)" = fp32 ] || die "calibration on a CPU without bf16 instructions ran in $(json calib_compute)"
if [ $kernels = 1 ]; then
  expect_ok quantize_on whole -o card --device cuda:1
  expect_err '^device: cuda:1 \(Fake 1, compute capability 9\.0, 25\.8 GB, driver for CUDA 13\.0\)'
  expect_out '^  factorisation .* cuda:1 +[0-9.]+ % of'
  matches card plain
  expect_ok quantize_on whole -o card --device auto --quiet --force
fi
