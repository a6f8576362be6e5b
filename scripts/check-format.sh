#!/bin/sh
# Every C file is as .clang-format says (clang-format 14, Debian 12's). Exit 77, skipped: that version is not here;
# scripts/install-deps.sh --dev brings it.
set -u
cd "$(dirname "$0")/.." || exit 1
tool=""
for name in clang-format-14 clang-format; do
  if "$name" --version 2>/dev/null | grep -q 'version 14\.'; then tool=$name && break; fi
done
[ -n "$tool" ] || { echo "check-format.sh: no clang-format 14: scripts/install-deps.sh --dev" >&2; exit 77; }
find src include cli server tools tests examples \( -name '*.c' -o -name '*.h' \) -print0 | xargs -0 "$tool" --dry-run -Werror
