#!/bin/sh
# Without the optional parts: what is built without libedit, libmicrohttpd, MPI and nvcc evaluates, generates and chats, and says what it lacks for a card. The
# rest of it, and so the unit tests, is compiled from the same lines as with them.   JOBS: compilers at a time
set -eu
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cmake --preset plain > "$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
grep '^-- libedit: no, switched off by GPTVQ_LIBEDIT' "$scratch/log"
targets=gptvq driver=build/plain/tests/driver/fake/whole
! grep -q '^-- Shim: no' "$scratch/log" || driver=
[ -z "$driver" ] || targets="$targets fake_whole_libcuda.so.1"
# shellcheck disable=SC2086
cmake --build --preset plain -j "${JOBS:-$(nproc)}" --target $targets
! readelf -d build/plain/gptvq | grep -qE 'NEEDED.*libedit' || { echo "build/plain/gptvq needs libedit"; exit 1; }
if [ -n "$driver" ]; then
  code=0
  LD_LIBRARY_PATH=$driver build/plain/gptvq eval examples/stories-4m --text examples/text/eval.txt --device cuda 2> "$scratch/log" || code=$?
  [ "$code" = 5 ] && grep -q 'no kernels for cards: it was built without nvcc' "$scratch/log" ||
    { echo "without nvcc --device cuda ends with $code and:"; cat "$scratch/log"; exit 1; }
fi
scripts/check.sh build/plain -R '^(cli_eval|cli_generate|cli_chat|layers)$'
