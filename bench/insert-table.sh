#!/bin/sh
# Replaces what stands between the markers <!-- NAME begin …--> and <!-- NAME end --> of a page by standard input.
#   bench/insert-table.sh PAGE NAME < table
set -eu
page=$1 name=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/table"
grep -q "<!-- $name begin" "$page" || { echo "insert-table.sh: $page has no marker for $name" >&2; exit 1; }
awk -v name="$name" -v table="$work/table" '
  index($0, "<!-- " name " begin") { print; while ((getline line <table) > 0) print line; skip = 1; next }
  index($0, "<!-- " name " end") { skip = 0 }
  !skip' "$page" >"$work/page"
cat "$work/page" >"$page"
