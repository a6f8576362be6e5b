# Helpers of the CLI tests (POSIX sh, sourced). Tests run in an empty scratch folder with -eu; $GPTVQ is the program, $SOURCE the tree.
# What commands print is kept outside the scratch folder, so that `files` sees only what they leave behind.

capture=$(mktemp -d)
trap 'rm -rf "$capture"' EXIT
model=$SOURCE/examples/stories-4m
text=$SOURCE/examples/text/eval.txt
unset GPTVQ_CPU || true

die() {
  echo "FAILED: $*" >&2
  [ ! -s "$capture/err" ] || sed 's/^/  stderr: /' "$capture/err" >&2
  exit 1
}

# run COMMAND…: stdout and stderr into $capture/out and err, exit code into $code
run() {
  code=0
  "$@" > "$capture/out" 2> "$capture/err" < /dev/null || code=$?
}

# every file of the scratch folder with its size, symbolic links not followed
files() { find . -type f -exec ls -ln {} + | awk '{print $5, $9}' | sort; find . ! -type f | sort; }

# the files of a packed folder that are the same each time: all but the record of the run, which has its times
lasting() { ls -d "$1"/* | grep -v '/gptvq\.json$'; }

# expect_fail CODE PATTERN COMMAND…: exit code, exactly one error line that matches (extended regex), nothing on stdout, no file
# made, changed in size or left behind
expect_fail() {
  want=$1 pattern=$2
  shift 2
  files > "$capture/before"
  run "$@"
  files > "$capture/after"
  echo "$code" | grep -Eqx -- "$want" || die "exit code $code, expected $want: $*"
  [ "$(grep -c '^gptvq: error: ' "$capture/err")" = 1 ] || die "expected one error line: $*"
  grep '^gptvq: error: ' "$capture/err" | grep -Eq -- "$pattern" || die "the error line does not match '$pattern': $*"
  [ ! -s "$capture/out" ] || die "printed a result although it failed: $*"
  cmp -s "$capture/before" "$capture/after" || die "left something behind: $* $(diff "$capture/before" "$capture/after")"
}

# expect_ok COMMAND…: exit code 0; what it printed is in $capture/out
expect_ok() {
  run "$@"
  [ "$code" = 0 ] || die "exit code $code: $*"
}

# expect_out PATTERN: the output of the last command has a matching line
expect_out() { grep -Eq -- "$1" "$capture/out" || die "no line of the output matches '$1': $(cat "$capture/out")"; }
expect_err() { grep -Eq -- "$1" "$capture/err" || die "no line on standard error matches '$1'"; }

# json KEY: the first number, word or string under KEY in the last output
json() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$capture/out" | head -n 1; }
# golden KEY: the same in tests/golden/eval/reference.json
golden() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$SOURCE/tests/golden/eval/reference.json"; }

# near A B TOLERANCE: |A - B| <= TOLERANCE · |B|
near() {
  awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN {d = a - b; if (d < 0) d = -d; m = b < 0 ? -b : b; exit !(a != "" && b != "" && d <= t * m)}' ||
    die "$1 is not within $3 of $2"
}

# copy_model NAME: a writable copy of the example model
copy_model() {
  cp -r "$model" "$1"
  chmod -R u+w "$1"
}
# edit FILE SED-EXPRESSION: in place, bytes untouched otherwise; fails when nothing changes
edit() {
  LC_ALL=C sed "$2" "$1" > "$capture/edited"
  ! cmp -s "$1" "$capture/edited" || die "edit $2 changes nothing in $1"
  cat "$capture/edited" > "$1"
}
# poke FILE OFFSET BYTES (printf escapes)
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2> /dev/null; }
# data_offset FILE TENSOR: where its bytes begin
data_offset() {
  header=$(od -An -t u8 -N 8 "$1" | tr -d ' ')
  begin=$(dd if="$1" bs=1 skip=8 count="$header" 2> /dev/null | sed "s/.*\"$2\":{[^}]*\"data_offsets\":\[\([0-9]*\),.*/\1/")
  echo $((8 + header + begin))
}
