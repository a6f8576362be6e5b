# Thin front of CMake: see README.md.
.PHONY: install dist deb release debug asan-ubsan tsan aarch64-cross check check-plain check-sanitized check-cuda-sanitized check-aarch64 check-python demo quality reproduce-paper deps clean
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
	@JOBS=$(JOBS) scripts/check-plain.sh

check-sanitized: asan-ubsan
	@scripts/check.sh build/asan-ubsan

# The kernels for cards, on the shim: what else there is is compiled as by `make release`.
check-cuda-sanitized: deps
	@cmake --preset cuda-sanitized >/dev/null
	@cmake --build --preset cuda-sanitized -j $(JOBS)
	@scripts/check.sh build/cuda-sanitized -L shim

check-aarch64: aarch64-cross
	@scripts/check.sh build/aarch64-cross

check-python: release
	@scripts/install-deps.sh --python
	@scripts/check-python.sh

demo: release
	@scripts/demo.sh

reproduce-paper: release
	@bench/reproduce-paper.sh
	@bench/update-tables.sh

quality: release
	@bench/quality.sh
	@bench/update-tables.sh

# DESTDIR=FOLDER stages it elsewhere.
PREFIX ?= /usr/local
install: release
	@cmake --install build/release --prefix $(PREFIX)

# gptvq-VERSION.tar.gz of what is committed.
VERSION = $(shell sed -n 's,^project.gptvq VERSION \([0-9.]*\).*,\1,p' CMakeLists.txt)
dist:
	@git archive --prefix=gptvq-$(VERSION)/ -o gptvq-$(VERSION).tar.gz HEAD
	@echo gptvq-$(VERSION).tar.gz

# Debian packages, in the folder above; needs debhelper and dpkg-dev.
deb:
	@dpkg-buildpackage -us -uc -b

clean:
	rm -rf build out
