# Thin front of CMake: see README.md.
.PHONY: release debug asan-ubsan tsan aarch64-cross check check-plain check-sanitized check-aarch64 demo quality reproduce-paper deps clean
JOBS ?= $(shell nproc)

release debug asan-ubsan tsan: deps
	@cmake --preset $@ >/dev/null
	@cmake --build --preset $@ -j $(JOBS)

aarch64-cross:
	@scripts/install-deps.sh --aarch64
	@cmake --preset $@ >/dev/null
	@cmake --build --preset $@ -j $(JOBS)

deps:
	@scripts/install-deps.sh

check: release
	@scripts/check.sh build/release

check-plain: deps
	@JOBS=$(JOBS) scripts/check-no-onednn.sh

check-sanitized: asan-ubsan
	@scripts/check.sh build/asan-ubsan

check-aarch64: aarch64-cross
	@scripts/check.sh build/aarch64-cross

demo: release
	@scripts/demo.sh

reproduce-paper: release
	@bench/reproduce-paper.sh
	@bench/update-tables.sh

quality: release
	@bench/quality.sh
	@bench/update-tables.sh

clean:
	rm -rf build out
