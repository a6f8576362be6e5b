#!/bin/sh
# Without the optional parts: what is built without libedit and libmicrohttpd (build/plain) passes the unit and kernel tests, evaluates, generates and chats.   JOBS: compilers at a time
set -eu
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cmake --preset plain > "$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
grep '^-- libedit: no, switched off by GPTVQ_LIBEDIT' "$scratch/log"
cmake --build --preset plain -j "${JOBS:-$(nproc)}"
! readelf -d build/plain/gptvq | grep -qE 'NEEDED.*libedit' || { echo "build/plain/gptvq needs libedit"; exit 1; }
scripts/check.sh build/plain -R '^(test_.*|cli_eval|cli_generate|cli_chat|layers)$'
