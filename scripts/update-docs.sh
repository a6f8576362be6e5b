#!/bin/sh
# Puts what `gptvq COMMAND --help` says into docs/CLI.md; tests/cli/docs.sh compares.
#   scripts/update-docs.sh [PROGRAM] [FILE]
set -eu
program=${1:-build/release/gptvq} file=${2:-docs/CLI.md}
for command in quantize eval compare generate chat serve inspect report export tokenize "bench model" "bench make-model" "bench kernels" "bench memory" "bench quantize" "bench device"; do
  printf '\n### %s\n```\n' "$command"
  # shellcheck disable=SC2086
  "$program" $command --help
  printf '```\n'
done | "$(dirname "$0")/../bench/insert-table.sh" "$file" help
