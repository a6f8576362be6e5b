# Thin front of CMake: see README.md.
.PHONY: release debug asan-ubsan tsan check check-sanitized demo quality deps clean
JOBS ?= $(shell nproc)

release debug asan-ubsan tsan: deps
	@cmake --preset $@ >/dev/null
	@cmake --build --preset $@ -j $(JOBS)

deps:
	@scripts/install-deps.sh

check: release
	@scripts/check.sh build/release

check-sanitized: asan-ubsan
	@scripts/check.sh build/asan-ubsan

demo: release
	@scripts/demo.sh

quality: release
	@bench/quality.sh

clean:
	rm -rf build out
