# libgptvq as an engineer uses it: installed, found by pkg-config, linked with the example, which writes what the command writes.
. "$SOURCE/tests/cli/lib.sh"

for name in $(cat "$SOURCE"/include/gptvq/*.h | tr '\n' ' ' | grep -oE 'gptvq_[a-z0-9_]*(destroy|close|free)\(' | tr -d '(' | sort -u); do
  grep -qE "(^| )$name\(NULL\)" "$SOURCE/tests/unit/test_library.c" || die "test_library.c does not try $name(NULL)"
done

complete=$BUILD/tests/complete layer=$BUILD/tests/layer
if [ -n "$CC" ]; then
  expect_ok cmake --install "$BUILD" --prefix "$PWD/root"
  lib=$PWD/root/$LIBDIR
  export PKG_CONFIG_PATH="$lib/pkgconfig" LD_LIBRARY_PATH="$lib"
  pkg-config --exists --print-errors gptvq || die "pkg-config does not find it"
  # shellcheck disable=SC2046
  expect_ok "$CC" -std=c11 -Wall -Wextra -Wpedantic -Werror "$SOURCE/examples/complete.c" $(pkg-config --cflags --libs gptvq) -o complete
  complete=./complete
  # shellcheck disable=SC2046
  expect_ok "$CC" -std=c11 -Wall -Wextra -Wpedantic -Werror "$SOURCE/examples/layer.c" $(pkg-config --cflags --libs gptvq) -o layer
  layer=./layer
  nm -D --defined-only "$lib/libgptvq.so" | awk '{print $3}' | sort > exported
  cat root/include/gptvq/*.h | tr '\n' ' ' | grep -o 'GPTVQ_API [^;(]*[ *]gptvq_[a-z0-9_]*(' | grep -o 'gptvq_[a-z0-9_]*($' | tr -d '(' | sort > declared
  cmp exported declared || die "exports other names than the headers declare: $(diff exported declared)"
  # benchmarks and random models are the command's: neither installed, exported nor hidden inside
  expect_ok "$GPTVQ" bench --help
  [ ! -e root/include/gptvq/bench.h ] || die "bench.h is installed"
  for file in "$lib/libgptvq.so" "$lib/libgptvq-runtime.so"; do
    nm "$file" | grep -q ' gptvq_model_open$' || die "$file has no symbols to look at"
    ! nm "$file" | grep -E 'gptvq_[a-z_]*(bench|random_model|bandwidth|read_memory)' || die "$file holds benchmarks"
  done
  # the runtime alone: the same program without LAPACK and the quantizer
  # shellcheck disable=SC2046
  expect_ok "$CC" -std=c11 "$SOURCE/examples/complete.c" $(pkg-config --cflags --libs gptvq-runtime) -o runtime
  for file in runtime "$lib/libgptvq-runtime.so"; do
    ! readelf -d "$file" | grep -E 'NEEDED.*(liblapack|libgptvq\.)' || die "$file needs LAPACK or the quantizer"
  done
  readelf -d runtime | grep -q 'NEEDED.*libgptvq-runtime' || die "not linked with the runtime"
  nm -D --defined-only "$lib/libgptvq-runtime.so" | awk '{print $3}' | sort > runtime-exported
  [ -z "$(comm -23 runtime-exported declared)" ] || die "the runtime exports $(comm -23 runtime-exported declared)"
  ! grep -E 'quantize|pack_layer|export' runtime-exported || die "the runtime has the quantizer"
  [ "$(pkg-config --modversion gptvq-runtime)" = "$("$GPTVQ" --version | cut -d ' ' -f 2)" ] || die "versions differ"
fi

# same_text FOLDER PROMPT TOKENS
same_text() {
  expect_ok "$GPTVQ" generate "$1" -p "$2" -n "$3" --temp 0
  cp "$capture/out" wanted
  expect_ok "$complete" "$1" "$2" "$3"
  cmp "$capture/out" wanted || die "$1, '$2': '$(cat "$capture/out")', the command writes '$(cat wanted)'"
}
same_text "$model" "Once upon a time there was a" 24
same_text "$model" "" 8
same_text "$model" "$(printf 'The end.<|endoftext|> caf\303 "')" 8
same_text "$model" "Tom was" 0
same_text "$model" "Once upon a time" 400 # to the end of the story
[ "$(wc -w < wanted)" -lt 300 ] || die "the story has no end: nothing was tested"
expect_ok "$GPTVQ" quantize "$model" -o packed --method rtn --bits 4.25 --head-bits 8
same_text packed "One day" 24
cp -r "$model" sentencepiece # decodes a word with the space before it, but for the first
cp "$SOURCE/tests/golden/text/llama2.json" sentencepiece/tokenizer.json
rm -f sentencepiece/tokenizer_config.json
same_text sentencepiece "Once upon a time" 24
same_text sentencepiece "The" 24

if [ -n "$CC" ]; then # the runtime writes the same
  expect_ok "$GPTVQ" generate packed -p "One day" -n 24 --temp 0
  cp "$capture/out" wanted
  expect_ok ./runtime packed "One day" 24
  cmp "$capture/out" wanted || die "the runtime writes something else"
fi

expect_ok "$layer" 2.25
awk '/^without/ {a = $NF} /^with its/ {b = $NF} END {exit !(b > 0 && b < a)}' "$capture/out" || die "the Hessian does not help: $(cat "$capture/out")"
run "$layer" 99
[ "$code" = 2 ] && grep -q '^layer: .*bits' "$capture/err" || die "exit code $code for 99 bits"

run "$complete" nowhere x
[ "$code" = 3 ] || die "exit code $code for a missing folder"
grep -q '^complete: nowhere' "$capture/err" || die "no message: $(cat "$capture/err")"
