#!/bin/sh
# check.sh FOLDER [CTEST OPTIONS…]: runs the tests of a build folder and closes with a line "N passed, N failed, N skipped".
# TESTS: those alone whose name this regular expression finds.
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT
build=$1
shift
ctest --test-dir "$build" --output-on-failure -j "$(nproc)" ${TESTS:+-R "$TESTS"} "$@" 2>&1 | tee "$log"
failed=$(grep -cE '\*\*\*(Failed|Timeout|Exception|Not Run)' "$log")
passed=$(grep -cE '   Passed ' "$log")
skipped=$(grep -cE '\*\*\*Skipped' "$log")
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
