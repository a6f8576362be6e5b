# docs/CLI.md shows the help that the program prints; every option of the table is in it.
. "$SOURCE/tests/cli/lib.sh"
cp "$SOURCE/docs/CLI.md" CLI.md
grep -q '^<!-- help begin' CLI.md || die "docs/CLI.md has lost its mark"
"$SOURCE/scripts/update-docs.sh" "$GPTVQ" CLI.md
diff "$SOURCE/docs/CLI.md" CLI.md || die "docs/CLI.md is not what --help says: scripts/update-docs.sh"
! grep -E '\(default: .{95}\)' CLI.md || die "a default as long as gptvq_option.initial has room for: it may be cut off"
[ "$(grep -c '^  --' CLI.md)" -ge 60 ] || die "docs/CLI.md lists too few options"
