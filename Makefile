# Thin front of CMake: see README.md.
.PHONY: release debug check demo deps clean
JOBS ?= $(shell nproc)

deps:
	@scripts/install-deps.sh

release debug asan-ubsan tsan: deps
	@cmake --preset $@ >/dev/null && cmake --build --preset $@ -j $(JOBS)

check: release
	@scripts/check.sh build/release

clean:
	rm -rf build
