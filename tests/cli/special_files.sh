# Where a file or folder is expected and something else stands: a FIFO that nobody writes to, a device without an end, a folder, a link to
# nothing. Refused at once, by name; pipes stay good sources of text.
. "$SOURCE/tests/cli/lib.sh"

# Nothing here may wait: a program that does is stopped after half a minute.
gptvq() { timeout 30 "$GPTVQ" "$@"; }
rtn="--method rtn --bits 3.125 --quiet"
printf 'Once upon a time there was a little girl named Lily.' > short.txt
mkfifo fifo
mkdir folder
ln -s loop loop

# instead FILE SOURCE: in the model folder m, FILE is replaced by SOURCE
instead() {
  rm -rf m
  copy_model m
  rm "m/$1"
  ln -s "$PWD/$2" "m/$1"
}
ln -s /dev/zero zero
# shellcheck disable=SC2086
for what in fifo zero folder; do
  for file in config.json model.safetensors tokenizer.json generation_config.json tokenizer_config.json; do
    instead $file $what
    case $file in
      tokenizer*) expect_fail 3 "m/$file is not a regular file" gptvq tokenize m --text short.txt ;;
      *) expect_fail 3 "m/$file is not a regular file" gptvq inspect m && # shellcheck disable=SC2015
        expect_fail 3 "m/$file is not a regular file" gptvq quantize m -o out $rtn ;;
    esac
  done
  expect_fail 3 "^gptvq: error: $what.*not a regular file|$what.*no tokenizer.json" gptvq tokenize $what --text short.txt
  expect_fail 3 "$what is not a regular file" gptvq quantize "$model" -o out --calib $what --quiet
done
for command in "eval $model --text" "tokenize $model --text" "generate $model --prompt-file"; do
  expect_fail 3 'cannot read /dev/zero: it is a device, not a text' gptvq $command /dev/zero
  expect_fail 3 'cannot read folder: Is a directory' gptvq $command folder
  expect_fail 3 'cannot read loop' gptvq $command loop
done
truncate -s 5G sparse 2> /dev/null && expect_fail 8 'sparse: a text has at most 4 GiB' gptvq eval "$model" --text sparse
rm -f sparse
expect_fail 8 '/dev/null is empty' gptvq eval "$model" --text /dev/null

# pipes of all kinds
expect_ok gptvq tokenize "$model" --text short.txt
mv "$capture/out" expected
expect_text() { cmp -s "$capture/out" expected || die "other tokens: $*"; }
sh -c 'cat short.txt | "$GPTVQ" tokenize "$1" --text -' sh "$model" > "$capture/out" && expect_text -
sh -c 'cat short.txt | "$GPTVQ" tokenize "$1" --text /dev/stdin' sh "$model" > "$capture/out" && expect_text /dev/stdin
"$GPTVQ" tokenize "$model" --text /dev/stdin < short.txt > "$capture/out" && expect_text "/dev/stdin from a file"
cat short.txt > fifo &
expect_ok gptvq tokenize "$model" --text fifo
expect_text fifo

# outputs: OUT, and OUT.partial, where runs work
# shellcheck disable=SC2086
for what in fifo short.txt loop; do
  expect_fail 3 "$what exists; use --force" gptvq quantize "$model" -o $what $rtn
  expect_fail 3 "$what exists and is not a folder" gptvq quantize "$model" -o $what $rtn --force
  ln -s $what out.partial
  expect_fail 3 'out.partial exists and is not a folder' gptvq quantize "$model" -o out $rtn --force
  rm out.partial
done
ln -s folder out.partial # not even a link to a folder
expect_fail 3 'out.partial exists and is not a folder' gptvq quantize "$model" -o out $rtn --force
rm out.partial
expect_fail 3 'loop/out' gptvq quantize "$model" -o loop/out $rtn
expect_fail 3 'fifo/out' gptvq quantize "$model" -o fifo/out $rtn
