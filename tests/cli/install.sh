# What cmake --install puts in place, staged: the command with its manual pages and completion, libraries found by pkg-config and by CMake.
. "$SOURCE/tests/cli/lib.sh"
[ -n "$CC" ] || exit 0 # what is installed could not be run here

expect_ok env DESTDIR="$PWD/stage" cmake --install "$BUILD" --prefix /opt/gptvq
root=$PWD/stage/opt/gptvq
for file in bin/gptvq include/gptvq/gptvq.h "$LIBDIR/libgptvq.so" "$LIBDIR/libgptvq-runtime.so.0" "$LIBDIR/pkgconfig/gptvq.pc" share/man/man1/gptvq.1 \
  share/man/man1/gptvq-quantize.1 share/bash-completion/completions/gptvq share/zsh/site-functions/_gptvq; do
  [ -e "$root/$file" ] || die "$file is not installed"
done
expect_ok "$root/bin/gptvq" --version
! grep -rl "$BUILD" "$root/$LIBDIR/cmake" "$root/$LIBDIR/pkgconfig" || die "installed files name the build folder"

# each command has its page, which names each of its options
"$GPTVQ" --help=commands | cut -f 1 | grep -v '^bench$' > commands
[ "$(wc -l < commands)" -ge 8 ] || die "too few commands"
while read -r command; do
  page=$root/share/man/man1/gptvq-$command.1
  "$GPTVQ" "$command" --help=options | cut -f 1 | sed 's/^--no-/--/; s/^--//; s/-/\\-/g' | while read -r option; do
    grep -Fq -- "$option" "$page" || { echo "gptvq-$command.1 lacks $option" >&2; exit 1; }
  done || die "a page lacks an option"
done < commands
for name in model make-model kernels memory quantize; do
  grep -q '^\.SH' "$root/share/man/man1/gptvq-bench-$name.1" || die "bench $name has no page"
done
if command -v man > /dev/null && [ -x "$(command -v groff || true)" ]; then
  man --warnings -E UTF-8 -l -Tutf8 -Z "$root/share/man/man1/gptvq-quantize.1" 2> warnings > /dev/null
  [ ! -s warnings ] || die "roff: $(head -n 3 warnings)"
fi

if command -v bash > /dev/null; then
  complete() { # WORDS…: what the last one may become
    bash -c '. "$1"; shift; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _gptvq; printf "%s\n" "${COMPREPLY[@]}"' - \
      "$root/share/bash-completion/completions/gptvq" "$root/bin/gptvq" "$@"
  }
  [ "$(complete qu)" = quantize ] || die "commands are not completed: $(complete qu)"
  [ "$(complete quantize --calib-sa)" = --calib-samples ] || die "options are not completed: $(complete quantize --calib-sa)"
  [ "$(complete quantize --method g | tr '\n' ' ')" = 'gptvq gptq ' ] || die "choices are not completed"
  complete eval model --no-b | grep -Fqx -- --no-bos || die "switches are not completed"
  touch some-text
  [ "$(complete eval model --text some-)" = some-text ] || die "files are not completed"
  complete bench model --r | grep -q '^--' || die "benchmarks are not completed"
fi

# a project of its own, by CMake and by pkg-config
mkdir consumer
cat > consumer/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C)
find_package(gptvq 0.1 REQUIRED)
add_executable(whole main.c)
target_link_libraries(whole gptvq::gptvq)
add_executable(runtime main.c)
target_link_libraries(runtime gptvq::runtime)
END
cat > consumer/main.c <<'END'
#include <gptvq/gptvq.h>
#include <stdio.h>
int main(void) { return puts(gptvq_version()) < 0; }
END
expect_ok cmake -S consumer -B consumer/build -DCMAKE_PREFIX_PATH="$root" -DCMAKE_C_COMPILER="$CC"
expect_ok cmake --build consumer/build
for program in whole runtime; do
  expect_ok consumer/build/$program
  [ "$(cat "$capture/out")" = "$("$GPTVQ" --version | cut -d ' ' -f 2)" ] || die "$program is of another version"
done
! readelf -d consumer/build/runtime | grep -q 'NEEDED.*libgptvq\.' || die "the runtime's program needs the whole library"
# shellcheck disable=SC2046
expect_ok "$CC" consumer/main.c $(PKG_CONFIG_PATH="$root/$LIBDIR/pkgconfig" pkg-config --cflags --libs gptvq) -o main

# the source tarball has the program's version in its name
if command -v make > /dev/null; then
  version=$("$GPTVQ" --version | cut -d ' ' -f 2)
  expect_ok make -s -n -C "$SOURCE" dist
  expect_out "git archive --prefix=gptvq-$version/ -o gptvq-$version\\.tar\\.gz HEAD"
fi
