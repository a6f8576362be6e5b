# libgptvq as an engineer uses it: installed, found by pkg-config, linked with the example, which writes what the command writes.
. "$SOURCE/tests/cli/lib.sh"

prompt="Once upon a time there was a"
expect_ok "$GPTVQ" generate "$model" -p "$prompt" -n 24 --temp 0
cp "$capture/out" wanted
complete=$BUILD/tests/complete
if [ -n "$CC" ]; then
  expect_ok cmake --install "$BUILD" --prefix "$PWD/root"
  export PKG_CONFIG_PATH="$PWD/root/lib/pkgconfig" LD_LIBRARY_PATH="$PWD/root/lib"
  pkg-config --exists --print-errors gptvq || die "pkg-config does not find it"
  # shellcheck disable=SC2046
  expect_ok "$CC" -std=c11 -Wall -Wextra -Wpedantic -Werror "$SOURCE/examples/complete.c" $(pkg-config --cflags --libs gptvq) -o complete
  complete=./complete
  [ -z "$(nm -D --defined-only root/lib/libgptvq.so | awk '{print $3}' | grep -v '^gptvq_')" ] || die "exports other names"
fi
expect_ok "$complete" "$model" "$prompt" 24
cmp "$capture/out" wanted || die "another text than the command's: $(cat "$capture/out")"
run "$complete" nowhere x
[ "$code" = 3 ] || die "exit code $code for a missing folder"
grep -q '^complete: cannot open nowhere' "$capture/err" || die "no message: $(cat "$capture/err")"
