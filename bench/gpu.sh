#!/bin/sh
# Everything that is to be known of a card, in under ten minutes: builds; names card and driver; measures copies and products; compares every kernel on the card,
# forward passes, and perplexity, with the CPU, then once more under compute-sanitizer, and a whole run of the bundled example; times the stages of a block of Llama-2-7B's shape, of a trellis and of vectors at three sizes. Writes bench/speed/CARD.csv.
#   bench/gpu.sh [--device cuda[:N]|shim] [--out FILE]
# shim: the same in small, on the CPU, to try the script. BUILD: the build folder (build/release).
set -eu
cd "$(dirname "$0")/.."
device=cuda out=
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    *) echo "usage: bench/gpu.sh [--device cuda[:N]|shim] [--out FILE]" >&2; exit 2 ;;
  esac
done
build=${BUILD:-build/release}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
say() { echo "== $* ($(($(date +%s) - begun)) s)"; }
begun=$(date +%s)
case $device in
  shim) shape=stories samples=1 length=64 measure="--side 256 --megabytes 4 --seconds 0.05" card=no kernels=AUTO ;;
  *) shape=llama-2-7b samples=4 length=1024 measure="" card=yes kernels=ON ;;
esac

if [ ! -x "$build/gptvq" ] || [ $card = yes ]; then
  say "build"
  cmake --preset release -DGPTVQ_CUDA=$kernels > "$scratch/log" 2>&1 &&
    cmake --build "$build" -j "$(nproc)" >> "$scratch/log" 2>&1 || { tail -n 30 "$scratch/log"; exit 1; }
fi
# CUDA's libraries where the toolkit keeps them
for folder in "${CUDA_HOME:-/usr/local/cuda}/lib64" "${CUDA_HOME:-/usr/local/cuda}/lib"; do
  [ ! -e "$folder/libcublas.so" ] || LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}"
gptvq=$build/gptvq

say "device"
[ $card = no ] || ! command -v nvidia-smi > /dev/null || nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv
# shellcheck disable=SC2086
"$gptvq" bench device --device "$device" $measure --json > "$scratch/device.json" || exit 1
cat "$scratch/device.json"
value() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$2" | head -n 1; }
name=$(value name "$scratch/device.json")
[ -n "$out" ] || out=bench/speed/$(echo "$name" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-').csv

say "kernels against the CPU"
failed=0
export GPTVQ_TEST_DEVICE="$device"
[ "$device" != shim ] || unset GPTVQ_TEST_DEVICE
programs="test_device test_cuda_kernels test_cuda_forward test_cuda_layer test_device_eval"
for test in $programs; do
  program=$(find "$build/tests" -name "$test" -type f | head -n 1)
  [ -n "$program" ] || { echo "$test is not built"; failed=1; continue; }
  if "$program" > "$scratch/$test.log" 2>&1; then echo "$test: passed"; else echo "$test: FAILED"; grep -E 'ERROR|LINE|error|FAILED' "$scratch/$test.log" | head -n 20; failed=1; fi
done
sanitizer=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" 2> /dev/null || true)
if [ $card = no ]; then
  echo "compute-sanitizer: needs a card"
elif [ -z "$sanitizer" ]; then
  echo "compute-sanitizer: not installed"
else
  for tool in memcheck racecheck synccheck; do
    for test in test_cuda_kernels test_cuda_forward; do
      say "compute-sanitizer $tool, $test"
      program=$(find "$build/tests" -name $test -type f | head -n 1)
      code=0
      timeout 60 "$sanitizer" --tool $tool --error-exitcode 9 "$program" > "$scratch/$tool.log" 2>&1 || code=$?
      case $code in
        0) echo "$tool, $test: clean" ;;
        124) echo "$tool, $test: not done after 60 s" ;;
        *) echo "$tool, $test: FAILED"; tail -n 15 "$scratch/$tool.log"; failed=1 ;;
      esac
    done
  done
fi
unset GPTVQ_TEST_DEVICE
if [ $card = yes ]; then
  say "a whole run beside the CPU"
  BUILD=$build bench/device-parity.sh --device "$device" || failed=1
fi
[ $failed = 0 ] || { echo "no times: the kernels are not right here"; exit 1; }

say "stages of a block of $shape, $samples windows of $length tokens"
export TMPDIR="${TMPDIR:-/tmp}"
{
  echo "device,shape,code,bits,windows,length,stage,seconds,device_seconds,gflop,gflop_per_s,share_of_tf32"
  echo "$name,copy to the device,,,,,,,,,$(value upload_bytes_per_s "$scratch/device.json" | awk '{print $1 / 1e9}'),"
  echo "$name,copy from the device,,,,,,,,,$(value download_bytes_per_s "$scratch/device.json" | awk '{print $1 / 1e9}'),"
  echo "$name,fp32 products,,,,,,,,,$(value fp32_gflop_per_s "$scratch/device.json"),"
  echo "$name,TF32 products,,,,,,,,,$(value tf32_gflop_per_s "$scratch/device.json"),"
} > "$scratch/out.csv"
peak=$(value tf32_gflop_per_s "$scratch/device.json")
# measure_block CODE BITS: its report; CODE: trellis, or the dimensions of vectors. On the shim the solver's short way, which takes seconds.
measure_block() {
  code="--dim $1" # words
  [ "$1" != trellis ] || code="--code trellis"
  if [ $card = yes ]; then
    # shellcheck disable=SC2086
    "$gptvq" bench quantize --shape $shape --layers 1 --calib-samples $samples --calib-length $length $code --bits "$2" --device "$device" --json --quiet
    return
  fi
  [ -d "$scratch/one" ] || "$gptvq" bench make-model -o "$scratch/one" --shape $shape --layers 1 --dense --quiet
  cp examples/stories-4m/tokenizer* "$scratch/one"
  # shellcheck disable=SC2086
  "$gptvq" quantize "$scratch/one" -o "$scratch/packed" --force --calib examples/text/calib.txt --calib-self 0 --calib-samples $samples --calib-length $length --judge-tokens 0 \
    $code --bits "$2" --beam 1 --em-iterations 2 --reassign-rounds 0 --device "$device" --json --quiet
}
for size in "trellis 2.04" "2 2.125" "4 2.25" "2 3.125"; do
  [ "$device" != shim ] || [ "$size" = "trellis 2.04" ] || [ "$size" = "2 2.125" ] || continue
  set -- $size
  measure_block "$1" "$2" > "$scratch/run.json"
  awk -v name="$name" -v shape=$shape -v code="$1" -v bits="$2" -v windows=$samples -v length_=$length -v peak="$peak" '
    function number(s) { sub(/^[^:]*: */, "", s); sub(/,? *$/, "", s); gsub(/"/, "", s); return s }
    function amount(s) { return number(s) + 0 }
    /"stages"/ {inside = 1}
    inside && /"name"/ {stage = number($0); gsub(/,/, " and", stage)}
    inside && /"seconds"/ {seconds = amount($0)}
    inside && /"flop"/ {flop = amount($0) / 1e9}
    inside && /"device_seconds"/ {device = amount($0)
      busy = device > 0 ? device : seconds
      rate = busy > 0 ? flop / busy : 0
      printf "%s,%s,%s,%s,%s,%s,%s,%.4f,%.4f,%.2f,%.2f,%.4f\n", name, shape, code, bits, windows, length_, stage, seconds, device, flop, rate, rate / peak}' "$scratch/run.json" >> "$scratch/out.csv"
  say "$1, $2 bits: $(value seconds "$scratch/run.json") s"
done
mkdir -p "$(dirname "$out")"
mv "$scratch/out.csv" "$out"
say "wrote $out"
