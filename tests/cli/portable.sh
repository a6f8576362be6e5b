# Every machine makes the same packed bytes from the same model without data, and the same tokens from them: what this prints was recorded on
# x86-64, with and without vector instructions; make check-aarch64 runs it on arm64.
. "$SOURCE/tests/cli/lib.sh"

checksum() { # of the tensors' bytes, headers left out
  for file in "$1"/model-0000[1-4]-of-00005.safetensors; do
    header=$(od -An -t u8 -N 8 "$file" | tr -d ' ')
    tail -c +$((9 + header)) "$file"
  done | cksum | tr ' ' -
}
expect_ok "$GPTVQ" quantize "$model" -o packed --method kmeans --dim 2 --bits 2.25 --nominal --em-iterations 4 --quiet
[ "$(checksum packed)" = 2052026714-894976 ] || die "other packed bytes: $(checksum packed)"
expect_ok "$GPTVQ" generate packed -p 'Once upon a time' -n 40 --temp 0 --quiet --json
got=$(sed -n '/"ids": \[/,/\]/p' "$capture/out" | tr -cd '0-9,' | sed 's|,$||')
[ "$got" = 13,388,285,260,379,424,372,302,15,317,401,263,308,312,296,450,268,296,380,15,406,330,13,302,329,380,535,296,263,395,263,265,400,15,317,285,393,615,263,510 ] ||
  die "other tokens: $got"
