#!/bin/sh
# Puts what `gptvq COMMAND --help` says into docs/CLI.md, between its marks; tests/cli/docs.sh compares.
#   scripts/update-docs.sh [PROGRAM] [FILE]
set -eu
program=${1:-build/release/gptvq} file=${2:-docs/CLI.md}
new=$(mktemp)
trap 'rm -f "$new"' EXIT
{
  sed '/^<!-- help begin/q' "$file"
  for command in quantize eval compare generate inspect export tokenize "bench model" "bench make-model" "bench kernels"; do
    printf '\n### %s\n```\n' "$command"
    # shellcheck disable=SC2086
    "$program" $command --help
    printf '```\n'
  done
  sed -n '/^<!-- help end/,$p' "$file"
} > "$new"
cat "$new" > "$file"
