#!/bin/sh
# Everything that is to be known of a card, in steps that have limits of time: build; parity (every kernel, forward passes and perplexity on the card against the
# CPU); sanitizer (the same under compute-sanitizer); blocks (stages of one block of Llama-2-7B's and 70B's shape, by each code, and what the whole model takes by
# that). The card, its copies and products come first, always. Blocks are written to FILE (bench/speed/CARD.csv), each as soon as it is measured.
#
#   bench/gpu.sh [--device cuda[:N]|shim] [--steps NAME,…] [--seconds N] [--shapes NAME,…] [--codes 'CODE BITS,…'] [--small] [--out FILE]
#
# Two calls of six and a half minutes each:
#   bench/gpu.sh --steps build,parity,sanitizer
#   bench/gpu.sh --steps blocks
# All steps of a call end after --seconds (390). Exit code 0: all was done, and right; 1: something is wrong; 3: something was not done, and is named.
# --device shim, and --small with a driver that stands for a card's: the script itself, tried on the CPU. --codes: the first is measured at two numbers of windows.
# BUILD: the build folder (build/release); SANITIZER: in place of compute-sanitizer.
set -eu
cd "$(dirname "$0")/.."
device=cuda steps='' seconds=390 shapes='' codes='trellis 2.05,2 2.125,4 2.25,2 3.125' small=no out=''
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --shapes) shapes=$2; shift 2 ;;
    --codes) codes=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --small) small=yes; shift ;;
    *) sed -n 's/^#   \(bench.gpu.sh \[.*\)/usage: \1/p' "$0" >&2; exit 2 ;;
  esac
done
[ "$device" != shim ] || small=yes
[ -n "$steps" ] || { steps=build,parity,sanitizer,blocks; [ "$device" != shim ] || steps=build,parity,blocks; }
# FEW, MANY: windows, from which 128 are reckoned
few=4 many=16 length=2048 measure="" solver=""
if [ $small = yes ]; then # the solver's short way, which takes seconds on the shim
  few=1 many=2 length=64 measure="--side 256 --megabytes 4 --seconds 0.05" solver="--beam 1 --em-iterations 2 --reassign-rounds 0"
  [ -n "$shapes" ] || shapes=stories
fi
[ -n "$shapes" ] || shapes=llama-2-7b,llama-2-70b
build=${BUILD:-build/release}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
begun=$(date +%s)
: > "$scratch/failed"
: > "$scratch/undone"
passed() { echo "passed: $*"; }
failed() { echo "FAILED: $*" | tee -a "$scratch/failed"; }
undone() { echo "NOT DONE: $*" | tee -a "$scratch/undone"; }
say() { echo "== $* ($(($(date +%s) - begun)) s)"; }
has_step() { case ",$steps," in *",$1,"*) ;; *) return 1 ;; esac; }
# attempt NAME SECONDS COMMAND…: its output to $scratch/log; what goes wrong is said. Returns 0 when it did well. Output without $sign, which a sanitizer always
# has, is that of one which could not work here.
sign=''
attempt() {
  what=$1 limit=$2 code=0
  shift 2
  left=$((begun + seconds - $(date +%s)))
  [ $small = no ] && [ "$limit" -le $left ] || limit=$left # on the CPU a limit says nothing of a card
  [ "$limit" -gt 0 ] || { undone "$what: no time was left"; return 1; }
  timeout -k 5 "$limit" "$@" > "$scratch/log" 2>&1 || code=$?
  case $code in
    124 | 137) undone "$what: stopped after $limit s" ;;
    *)
      if [ -n "$sign" ] && ! grep -q "$sign" "$scratch/log"; then undone "$what: exit code $code without a verdict"
      elif [ "$code" = 0 ]; then return 0
      else failed "$what: exit code $code"; grep -E 'LINE|rror|ERROR|FAILED' "$scratch/log" | head -n 20; fi ;;
  esac
  return 1
}
finish() {
  say "done: $(wc -l < "$scratch/failed") wrong, $(wc -l < "$scratch/undone") not done"
  cat "$scratch/failed" "$scratch/undone"
  [ ! -s "$scratch/failed" ] || exit 1
  [ ! -s "$scratch/undone" ] || exit 3
  exit 0
}

if has_step build; then
  say "build"
  kernels=ON
  [ $small = no ] || kernels=AUTO
  [ $small = yes ] && [ -x "$build/gptvq" ] || { attempt "configuring" 60 cmake --preset release -DGPTVQ_CUDA=$kernels &&
    attempt "building" 300 cmake --build "$build" -j "$(nproc)"; } || { tail -n 30 "$scratch/log"; finish; }
fi
# CUDA's libraries where the toolkit keeps them
for folder in "${CUDA_HOME:-/usr/local/cuda}/lib64" "${CUDA_HOME:-/usr/local/cuda}/lib"; do
  [ ! -e "$folder/libcublas.so" ] || LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}"
gptvq=$build/gptvq
[ -x "$gptvq" ] || { failed "$gptvq is not built"; finish; }

say "device"
! command -v nvidia-smi > /dev/null || nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv || true
# shellcheck disable=SC2086
attempt "bench device" 60 "$gptvq" bench device --device "$device" $measure --json || { cat "$scratch/log"; finish; }
cp "$scratch/log" "$scratch/device.json"
cat "$scratch/device.json"
value() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$2" | head -n 1; }
name=$(value name "$scratch/device.json")
[ -n "$out" ] || out=bench/speed/$(echo "$name" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-').csv

programs="test_device test_cuda_kernels test_cuda_forward test_cuda_layer test_device_eval" # ctest runs them on what stands for a card (tests/CMakeLists.txt)
export GPTVQ_TEST_DEVICE="$device"
[ "$device" != shim ] || unset GPTVQ_TEST_DEVICE
# program TEST: where it is
program() { find "$build/tests" -name "$1" -type f | head -n 1; }
if has_step parity; then
  say "parity"
  for test in $programs; do
    path=$(program $test)
    [ -n "$path" ] || { undone "$test: not built"; continue; }
    ! attempt "$test" 60 "$path" || passed "$test"
  done
  if [ $small = no ] && attempt "the example beside the CPU" 120 env BUILD="$build" bench/device-parity.sh --device "$device"; then
    cat "$scratch/log"
    passed "the example beside the CPU"
  fi
fi
if has_step sanitizer; then
  sanitizer=${SANITIZER:-$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" 2> /dev/null || true)}
  [ "$device" != shim ] || sanitizer=''
  [ -n "$sanitizer" ] || undone "sanitizer: compute-sanitizer is not there, or nothing for it: no kernel was watched on a card"
  # TOOL TEST SECONDS, what matters most first
  [ -z "$sanitizer" ] || for run in memcheck:test_cuda_kernels:120 memcheck:test_cuda_forward:90 racecheck:test_cuda_kernels:90 memcheck:test_cuda_layer:90 \
    memcheck:test_device:60 synccheck:test_cuda_kernels:60 racecheck:test_cuda_forward:60 synccheck:test_cuda_forward:60; do
    tool=${run%%:*} limit=${run##*:} test=${run#*:}
    test=${test%:*}
    say "compute-sanitizer $tool, $test"
    path=$(program "$test")
    [ -n "$path" ] || { undone "$tool, $test: not built"; continue; }
    sign='SUMMARY: '
    ! attempt "$tool, $test" "$limit" "$sanitizer" --tool "$tool" --error-exitcode 9 "$path" || passed "$tool, $test: clean"
    tail -n 5 "$scratch/log"
    sign=''
  done
fi
unset GPTVQ_TEST_DEVICE
has_step blocks || finish
[ ! -s "$scratch/failed" ] || { undone "blocks: no times, as the kernels are not right here"; finish; }

mkdir -p "$(dirname "$out")"
{
  echo "device,shape,code,bits,windows,length,stage,seconds,device_seconds,gflop,gflop_per_s,precision,share_of_peak"
  for rate in "copy to the device:upload_bytes_per_s:1e-9" "copy from the device:download_bytes_per_s:1e-9" "products:fp32_gflop_per_s:1:fp32" "products:tf32_gflop_per_s:1:tf32" \
    "products:bf16_gflop_per_s:1:bf16"; do
    echo "$rate" | { IFS=: read -r what key scale precision
      value "$key" "$scratch/device.json" | awk -v name="$name" -v what="$what" -v scale="$scale" -v precision="$precision" \
        '{printf "%s,,,,,,%s,,,,%.2f,%s,\n", name, what, $1 * scale, precision}'; }
  done
  awk -v name="$name" -v n="$(value factor_side "$scratch/device.json")" -v s="$(value factor_seconds "$scratch/device.json")" \
    'BEGIN {printf "%s,,,,,,factorisation,%.4f,,%.2f,%.2f,fp64,\n", name, s, 2 / 3 * n ^ 3 / 1e9, 2 / 3 * n ^ 3 / 1e9 / s}'
} > "$out"
peak() { awk -F, -v precision="$1" '$12 == precision {print $11; exit}' "$out"; }
blocks_of() { case $1 in llama-2-7b) echo 32 ;; llama-2-70b) echo 80 ;; llama-2-13b) echo 40 ;; stories) echo 4 ;; *) echo 1 ;; esac; }

# make_model SHAPE: one block of random weights, with a tokenizer and a text of many tokens
make_model() {
  rm -rf "$scratch/model" "$scratch/packed"
  attempt "a model of $1's shape" 60 "$gptvq" bench make-model -o "$scratch/model" --shape "$1" --layers 1 --dense --quiet || return 1
  cp examples/stories-4m/tokenizer* "$scratch/model"
}
# measure_block SHAPE CODE BITS WINDOWS: rows into $out. CODE: trellis, the dimensions of vectors, or gptq, whose solver is the CPU's: little but calibration.
measure_block() {
  case $2 in trellis) code="--code trellis" ;; gptq) code="--method gptq" ;; *) code="--dim $2" ;; esac
  # shellcheck disable=SC2086
  attempt "$1, $2 at $3 bits, $4 windows" 200 "$gptvq" quantize "$scratch/model" -o "$scratch/packed" --force --calib examples/text/calib.txt --calib-self 0 --calib-samples "$4" \
    --calib-length $length --judge-tokens 0 --embedding-bits 16 --head-bits 16 --allocate uniform $code --bits "$3" $solver \
    --device "$device" --json --quiet || return 1
  awk -v name="$name" -v shape="$1" -v code="$2" -v bits="$3" -v windows="$4" -v length_=$length -v fp32="$(peak fp32)" -v tf32="$(peak tf32)" -v bf16="$(peak bf16)" -v fp64="$(peak fp64)" '
    function number(s) { sub(/^[^:]*: */, "", s); sub(/,? *$/, "", s); gsub(/"/, "", s); return s }
    function amount(s) { return number(s) + 0 }
    BEGIN {peak["fp32"] = fp32; peak["tf32"] = tf32; peak["bf16"] = bf16; peak["fp64"] = fp64}
    /"calib_compute"/ {half = number($0) == "bf16"}
    /"stages"/ {inside = 1}
    inside && /"name"/ {stage = number($0); gsub(/,/, "", stage)}
    inside && /"seconds"/ {seconds = amount($0)}
    inside && /"flop"/ {flop = amount($0) / 1e9}
    inside && /"device_seconds"/ {device = amount($0)
      precision = stage ~ /^forward/ && half ? "bf16" : stage ~ /^(Hessians|mismatch)/ && half ? "tf32" : stage == "factorisation" ? "fp64" : "fp32"
      busy = device > 0 ? device : seconds
      rate = busy > 0 ? flop / busy : 0
      printf "%s,%s,%s,%s,%s,%s,%s,%.4f,%.4f,%.2f,%.2f,%s,%.4f\n", name, shape, code, bits, windows, length_, stage, seconds, device, flop, rate, precision, rate / peak[precision]}' "$scratch/log" >> "$out"
  say "$1, $2 at $3 bits, $4 windows: $(value seconds "$scratch/log") s"
}
# seconds of reading a byte of the model's files, past the system's cache where the file system can
read_rate() {
  files=$(ls "$scratch"/model/*.safetensors)
  start=$(date +%s%N) bytes=0
  for file in $files; do
    dd if="$file" of=/dev/null bs=16M iflag=direct 2> /dev/null || cat "$file" > /dev/null
    bytes=$((bytes + $(stat -c %s "$file")))
  done
  awk -v ns=$(($(date +%s%N) - start)) -v bytes=$bytes 'BEGIN {print ns / 1e9 / bytes}'
}
# add_total SHAPE CODE BITS: 128 windows of 2,048 tokens and all blocks. Calibration from the first code's two numbers of windows, on a straight line; the solver's
# stages as measured; the text once; files of a block at read_rate.
add_total() {
  awk -F, -v name="$name" -v shape="$1" -v code="$2" -v bits="$3" -v first="$first" -v few=$few -v many=$many -v length_=$length -v blocks="$(blocks_of "$1")" \
    -v load="$(awk -v rate="$rate" -v bytes="$(stat -c %s "$scratch"/model/model-00001-*.safetensors)" 'BEGIN {print rate * bytes}')" '
    $2 != shape {next}
    $7 ~ /^(forward|Hessians|mismatch)/ {if ($3 " " $4 == first) at[$7, $5] = $8; stage[$7]; next}
    $3 == code && $4 == bits && $7 == "calibration text" {once = $8; next}
    $3 == code && $4 == bits {own[$7] = $8}
    END {
      for (s in stage) {
        more = at[s, many] - at[s, few] # of small models noise
        calibration += at[s, many] + (more > 0 ? more : 0) * (128 * 2048 / length_ - many) / (many - few)
      }
      for (s in own) solver += own[s]
      printf "%s,%s,%s,%s,128,2048,a block reckoned from %d and %d windows,%.2f,,,,,\n", name, shape, code, bits, few, many, calibration + solver
      printf "%s,%s,%s,%s,128,2048,%d blocks with load and store,%.1f,,,,,\n", name, shape, code, bits, blocks, blocks * (calibration + solver + load) + once
    }' "$out" > "$scratch/total"
  cat "$scratch/total" >> "$out"
  say "$1, $2 at $3 bits, the whole model: $(tail -n 1 "$scratch/total" | cut -d , -f 8) s"
}
first=${codes%%,*}
for shape in $(echo "$shapes" | tr , ' '); do
  make_model "$shape" || { undone "$shape: all of it"; continue; }
  rate=$(read_rate)
  # shellcheck disable=SC2086
  if ! measure_block "$shape" $first $many || ! measure_block "$shape" $first $few; then
    undone "$shape: other codes, and the whole model"
    continue
  fi
  # shellcheck disable=SC2086
  add_total "$shape" $first
  echo "$codes" | tr , '\n' | sed 1d > "$scratch/codes"
  while read -r kind bits; do
    ! measure_block "$shape" "$kind" "$bits" $few || add_total "$shape" "$kind" "$bits"
  done < "$scratch/codes"
done
say "wrote $out"
finish
