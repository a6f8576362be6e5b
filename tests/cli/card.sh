# The model card of a packed folder; models in a hub's cache, whose snapshots are links.
. "$SOURCE/tests/cli/lib.sh"
hub=hub/models--acme--stories-4m
mkdir -p $hub/blobs $hub/snapshots/1234
for file in "$model"/*; do
  name=$(basename "$file")
  cp "$file" "$hub/blobs/blob-of-$name"
  ln -s "../../blobs/blob-of-$name" "$hub/snapshots/1234/$name"
done
expect_ok "$GPTVQ" quantize $hub/snapshots/1234 -o small --method rtn --bits 4.25 --quiet
head -n 8 small/README.md > head
printf -- '---\nbase_model: "acme/stories-4m"\nbase_model_relation: quantized\nlibrary_name: gptvq\npipeline_tag: text-generation\ntags:\n- gptvq\n---\n' > wanted
cmp head wanted || die "the card begins otherwise"
grep -q '^| `method` | rtn |$' small/README.md || die "the card does not say the method"
expect_ok "$GPTVQ" inspect small --json
bits=$(json bits_per_value)
grep -q "^| bits per value of the block linears, exactly | $(printf %.4f "$bits") |\$" small/README.md || die "the card has other bits than inspect: $bits"
# a packed folder in a cache of links is read too, and its card is replaced with it
mkdir links && for file in small/*; do ln -s "../$file" "links/$(basename "$file")"; done
expect_ok "$GPTVQ" inspect links
expect_ok "$GPTVQ" quantize "$model" -o small --method rtn --bits 3.25 --seed 18446744073709551615 --quiet --force
grep -q '^base_model: "stories-4m"$' small/README.md || die "the folder's name is not the base model's"
grep -Fqx '| `seed` | 18446744073709551615 |' small/README.md || die "another seed: $(grep seed small/README.md)"
# whatever the folder is called, the card stays YAML
cp -r "$model" 'a "b" \c'
expect_ok "$GPTVQ" quantize 'a "b" \c/' -o odd --method rtn --bits 3.25 --quiet
grep -Fqx 'base_model: "a ?b? ?c"' odd/README.md || die "a name breaks out of its quotes: $(sed -n 2p odd/README.md)"
