#!/bin/sh
# Cycles per weight of the aarch64 inner loops, vector quantization against 4-bit integers, as llvm-mca predicts them: the loops of
# src/kernels/arm are compiled, cut out of the assembly at their markers and analysed. Memory is not part of it.
# Needs aarch64-linux-gnu-gcc and an llvm-mca that knows the processors (Debian: llvm-19; those before 17 take the Cortex-A57's and
# Cortex-A55's timing for nearly all).
#   bench/arm-mca.sh [CPU …]      default: neoverse-v2 cortex-x2 cortex-a510 cortex-a55
set -eu
cd "$(dirname "$0")/.."
compiler=${CC:-aarch64-linux-gnu-gcc}
mca=${LLVM_MCA:-}
for name in llvm-mca-22 llvm-mca-21 llvm-mca-20 llvm-mca-19 llvm-mca-18 llvm-mca-17 llvm-mca; do
  [ -n "$mca" ] || ! command -v "$name" >/dev/null || mca=$name
done
[ -n "$mca" ] || { echo "arm-mca.sh: no llvm-mca; apt-get install llvm-19" >&2; exit 1; }
[ $# -gt 0 ] || set -- neoverse-v2 cortex-x2 cortex-a510 cortex-a55
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/markers.h" <<'MARKERS'
#define GPTVQ_MCA_BEGIN(name) __asm__ volatile("// LLVM-MCA-BEGIN " name)
#define GPTVQ_MCA_END(name) __asm__ volatile("// LLVM-MCA-END " name)
MARKERS
for file in i8 trellis; do
  "$compiler" -std=c11 -D_POSIX_C_SOURCE=200809L -O3 -ffp-contract=off -march=armv8.2-a+dotprod -include "$work/markers.h" \
    -Isrc -Iinclude -S "src/kernels/arm/${file}_dotprod.c" -o "$work/$file.s"
done
cat "$work/i8.s" "$work/trellis.s" >"$work/all.s"

# cycles CPU FUNCTION MARKER: of one pass through the marked part of a function
cycles() {
  awk -v f="$2:" -v m="LLVM-MCA-BEGIN $3" -v e="LLVM-MCA-END $3" '
    $1 == f {on = 1} on && $1 == ".size" {exit} on && index($0, m) {copy = 1} copy {print} on && index($0, e) {exit}' "$work/all.s" |
    grep -v '^//\|^#' >"$work/loop.s" || true
  [ -s "$work/loop.s" ] || { echo "arm-mca.sh: no part $3 in $2" >&2; exit 1; }
  "$mca" -mtriple=aarch64 -mcpu="$1" -mattr=+dotprod -iterations=100 "$work/loop.s" 2>/dev/null |
    awk '/^Total Cycles:/ {print $3 / 100; exit}'
}

# formats: name | bits | function | marker | the paper's latency relative to int4 (arXiv 2402.15319, section on latency)
cat >"$work/formats" <<'FORMATS'
2-D, k = 16|2.125, 2.25|vq_loop_16|vq|0.87
2-D, k = 32|2.75|vq_loop_32|vq|0.96
2-D, k = 64|3, 3.125|vq_loop_64|vq|0.98
2-D, k = 256|4.125|gather_8_2|gather|
4-D, k = 256|2.25|gather_8_4|gather|
1-D, k = 4|2.125, 2.25|vq_loop_pairs|vq|
1-D, k = 8|3.125|tile_3_1|vq|
1-D, k = 16|4.125|tile_4_1|vq|
trellis|2.04|trellis_rows_2|trellis|
trellis|3.04|trellis_rows_3|trellis|
trellis|4.04|trellis_rows_4|trellis|
FORMATS

title="| format | bits |" rule="| --- | --- |" first="| int4, 128 columns per scale | 4.156 |" bases=""
for cpu in "$@"; do
  loop=$(cycles "$cpu" int4_loop int4)
  scales=$(cycles "$cpu" int4_scales scales) # scales and zero points of 16 blocks of 128 weights
  base=$(awk -v a="$loop" -v b="$scales" 'BEGIN {print a + b / 8}')
  bases="$bases $base" title="$title $cpu |" rule="$rule --- |" first="$first $(awk -v c="$base" 'BEGIN {printf "%.3f", c / 256}') |"
done
echo "$title paper |"
echo "$rule --- |"
echo "$first |"
while IFS='|' read -r name bits function marker paper; do
  line="| $name | $bits |" rest=$bases
  for cpu in "$@"; do
    base=$(echo "$rest" | awk '{print $1}') rest=$(echo "$rest" | awk '{$1 = ""; print}')
    line="$line $(awk -v c="$(cycles "$cpu" "$function" "$marker")" -v b="$base" 'BEGIN {printf "%.3f (%.2f)", c / 256, c / b}') |"
  done
  echo "$line${paper:+ $paper} |"
done <"$work/formats"
echo "Cycles per weight (and relative to int4), $("$mca" --version | sed -n 's/.*LLVM version \([0-9]*\).*/LLVM \1/p')"
