#!/bin/sh
# Without the optional parts: half an installation of oneDNN does not stop the configuration, and what is built without it and libedit
# (build/plain) passes the unit and kernel tests, evaluates, generates and chats.   JOBS: compilers at a time
set -eu
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/include/oneapi/dnnl"
echo 'typedef int dnnl_engine_t; enum { dnnl_cpu }; int dnnl_engine_create(int *, int, int);' > "$scratch/include/oneapi/dnnl/dnnl.h"
: > "$scratch/libdnnl.so"
cmake -S . -B "$scratch/build" -DGPTVQ_TESTS=OFF -DONEDNN_INCLUDE_DIR="$scratch/include" -DONEDNN_LIBRARY="$scratch/libdnnl.so" \
  > "$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
grep -q '^-- oneDNN: no, .*libdnnl\.so does not link' "$scratch/log" || { cat "$scratch/log"; exit 1; }
cmake --preset plain > "$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
grep '^-- oneDNN: no, switched off by GPTVQ_ONEDNN' "$scratch/log"
grep '^-- libedit: no, switched off by GPTVQ_LIBEDIT' "$scratch/log"
cmake --build --preset plain -j "${JOBS:-$(nproc)}"
! readelf -d build/plain/gptvq | grep -qE 'NEEDED.*(libdnnl|libOpenCL|libedit)' || { echo "build/plain/gptvq needs oneDNN or libedit"; exit 1; }
scripts/check.sh build/plain -R '^(test_.*|cli_eval|cli_generate|cli_chat|layers)$'
