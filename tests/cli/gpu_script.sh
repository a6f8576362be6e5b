# bench/gpu.sh, in small: what it writes on the shim; what was not done is said and is not taken for done, on a driver that stands for NVIDIA's.
. "$SOURCE/tests/cli/lib.sh"
[ -n "${FAKES:-}" ] || exit 0 # a sanitizer, another machine, or no C++ compiler
export BUILD
gpu() { "$SOURCE/bench/gpu.sh" --small --seconds 100000 "$@"; }

expect_ok gpu --device shim --steps blocks --codes 'gptq 4.25,gptq 3.25' --out "$PWD/shim.csv"
awk -F, '
  NF != 13 {print "a line of " NF " fields: " $0; bad = 1}
  $7 == "products" && $11 > 0 {peak[$12] = $11}
  $7 == "forward original" && $5 == 2 {forward = $12 == "bf16" && $10 > 0 && $13 != ""}
  $7 == "Hessians" && $5 == 2 {hessians = $12 == "tf32" && $10 > 0 && $13 != ""}
  $7 == "4 blocks with load and store" {whole++; if ($3 != "gptq" || $4 != 4.25 - (whole - 1) || $8 < 4 * block - 0.1) bad = 1}
  $7 ~ /^a block reckoned/ {block = $8}
  END {exit bad || !(peak["fp32"] && peak["tf32"] && peak["bf16"] && forward && hessians && block > 0 && whole == 2)}' shim.csv || die "shim.csv: $(cat shim.csv)"

# a sanitizer, on what the build has for a card
card() { env LD_LIBRARY_PATH="$FAKES/whole" SANITIZER="$1" CUDA_HOME=/nowhere "$SOURCE/bench/gpu.sh" --small --seconds 100000 --device cuda --steps sanitizer; }
LD_LIBRARY_PATH="$FAKES/whole" "$GPTVQ" bench device --device cuda --side 64 --megabytes 1 --seconds 0.001 > /dev/null 2>&1 || exit 0 # built without nvcc
for code in 0 9 124; do printf '#!/bin/sh\necho "========= ERROR SUMMARY: %s errors"\nexit %s\n' $code $code > ends-with-$code && chmod +x ends-with-$code; done
expect_ok card "$PWD/ends-with-0"
[ "$(grep -c '^passed: .*: clean$' "$capture/out")" = 8 ] || die "not eight times clean: $(cat "$capture/out")"
run card "$PWD/ends-with-9"
[ "$code" = 1 ] && grep -q '^FAILED: memcheck, test_cuda_kernels: exit code 9$' "$capture/out" || die "errors of the sanitizer end with $code: $(cat "$capture/out")"
run card "$PWD/ends-with-124"
[ "$code" = 3 ] && grep -q '^NOT DONE: memcheck, test_cuda_kernels: stopped' "$capture/out" || die "a sanitizer without end ends with $code: $(cat "$capture/out")"
! grep -q clean "$capture/out" || die "what was stopped is called clean"
run card true
[ "$code" = 3 ] && ! grep -q clean "$capture/out" || die "a sanitizer that says nothing is believed: $(cat "$capture/out")"
command -v compute-sanitizer > /dev/null && exit 0
run card ''
[ "$code" = 3 ] && grep -q '^NOT DONE: sanitizer: ' "$capture/out" || die "without a sanitizer: $code: $(cat "$capture/out")"
