#!/bin/sh
# Cycles per weight of the aarch64 inner loops, vector quantization against 4-bit integers, as llvm-mca predicts them: the loops of
# src/kernels/arm are compiled with markers and cut out of the assembly. Needs aarch64-linux-gnu-gcc and llvm-mca.
#   bench/arm-mca.sh [CPU …]      default: cortex-x2 cortex-a510 cortex-a76 cortex-a55 neoverse-n1
set -eu
cd "$(dirname "$0")/.."
compiler=${CC:-aarch64-linux-gnu-gcc}
mca=${LLVM_MCA:-llvm-mca}
[ $# -gt 0 ] || set -- cortex-x2 cortex-a510 cortex-a76 cortex-a55 neoverse-n1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/markers.h" <<'MARKERS'
#define GPTVQ_MCA_BEGIN(name) __asm__ volatile("// LLVM-MCA-BEGIN " name)
#define GPTVQ_MCA_END(name) __asm__ volatile("// LLVM-MCA-END " name)
MARKERS
"$compiler" -std=c11 -D_POSIX_C_SOURCE=200809L -O3 -ffp-contract=off -march=armv8.2-a+dotprod -include "$work/markers.h" \
  -Isrc -Iinclude -S src/kernels/arm/i8_dotprod.c -o "$work/all.s"

# cycles CPU FUNCTION: of one pass through the marked loop, which covers 256 weights
cycles() {
  awk -v f="$2:" '$1 == f {on = 1} on && /LLVM-MCA-BEGIN/ {copy = 1} copy {print} on && /LLVM-MCA-END/ {exit}' "$work/all.s" |
    grep -v '^//\|^#' >"$work/loop.s" || true
  "$mca" -mtriple=aarch64 -mcpu="$1" -mattr=+dotprod -iterations=200 "$work/loop.s" 2>/dev/null |
    awk '/^Total Cycles:/ {print $3 / 200; exit}'
}

echo "| CPU | int4 g128 | 2-D k = 16 (2.125, 2.25 bits) | 2-D k = 64 (3.125 bits) | 4-D k = 256 (2.25 bits) | k = 16 / int4 | k = 64 / int4 |"
echo "| --- | --- | --- | --- | --- | --- | --- |"
for cpu in "$@"; do
  int4=$(cycles "$cpu" uniform_4_128) vq16=$(cycles "$cpu" tile_4_2) vq64=$(cycles "$cpu" tile_6_2) vq256=$(cycles "$cpu" tile_8_4)
  awk -v cpu="$cpu" -v a="$int4" -v b="$vq16" -v c="$vq64" -v d="$vq256" 'BEGIN {
    printf "| %s | %.3f | %.3f | %.3f | %.3f | %.2f | %.2f |\n", cpu, a / 256, b / 256, c / 256, d / 256, b / a, c / a}'
done
