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

# the packed folder in a hub's cache, every file a link into blobs, under shard names that hubs know
hub=hub/models--acme--stories-4m-3b
mkdir -p $hub/blobs $hub/snapshots/abcd $hub/refs && printf abcd > $hub/refs/main
[ "$(ls small/*.safetensors | tr '\n' ' ')" = "$(for i in 1 2 3 4 5; do printf 'small/model-0000%d-of-00005.safetensors ' $i; done)" ] || die "other shards: $(ls small)"
for file in small/*; do
  sum=$(sha256sum "$file" | cut -d ' ' -f 1)
  cp "$file" $hub/blobs/$sum
  ln -s ../../blobs/$sum "$hub/snapshots/abcd/$(basename "$file")"
done
say() { "$GPTVQ" generate "$1" -p 'Once upon a time' -n 12 --temp 0 --quiet; }
[ "$(say $hub/snapshots/abcd)" = "$(say small)" ] || die "another text from the cache"
chmod -R a-w $hub
expect_ok "$GPTVQ" eval $hub/snapshots/abcd --text "$text" --ctx 64 --max-windows 1
expect_ok "$GPTVQ" export $hub/snapshots/abcd -o plain --format hf
chmod -R u+w $hub

# folders of older versions have other names of shards, and open as before
cp -r small older
for i in 1 2 3 4; do mv older/model-0000$i-of-00005.safetensors older/model-block-0000$((i - 1)).safetensors; done
mv older/model-00005-of-00005.safetensors older/model-rest.safetensors
sed -i 's/model-0000\([1-4]\)-of-00005/model-block-0000\1/; s/model-00005-of-00005/model-rest/' older/model.safetensors.index.json
for i in 1 2 3 4; do sed -i "s/model-block-0000$i\"/model-block-0000$((i - 1))\"/; s/model-block-0000$i\.safe/model-block-0000$((i - 1)).safe/" older/model.safetensors.index.json; done
rm older/gptvq.json
[ "$(say older)" = "$(say small)" ] || die "another text from a folder with older names"
expect_ok "$GPTVQ" quantize "$model" -o older --method rtn --bits 3.25 --quiet --force
[ "$(ls older/*.safetensors | wc -l)" = 5 ] || die "older shards were not replaced: $(ls older)"
