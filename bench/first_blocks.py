"""A copy of a model folder with its first N blocks: python3 first_blocks.py MODEL OUT N. Standard library only; one safetensors file."""
import json, os, shutil, struct, sys

source, out, blocks = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.makedirs(out, exist_ok=True)
for name in os.listdir(source):
    if not name.endswith((".safetensors", ".index.json")) and os.path.isfile(os.path.join(source, name)):
        shutil.copyfile(os.path.join(source, name), os.path.join(out, name))
with open(os.path.join(source, "config.json")) as file:
    config = json.load(file)
config["num_hidden_layers"] = blocks
with open(os.path.join(out, "config.json"), "w") as file:
    json.dump(config, file, indent=2)


def kept(name):
    parts = name.split(".")
    return "layers" not in parts or int(parts[parts.index("layers") + 1]) < blocks


tensors, header, at = [], {}, 0
for name in sorted(os.listdir(source)):
    if not name.endswith(".safetensors"):
        continue
    path = os.path.join(source, name)
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        for tensor, entry in json.loads(file.read(size)).items():
            if tensor == "__metadata__" or not kept(tensor):
                continue
            begin, end = entry["data_offsets"]
            tensors.append((path, 8 + size + begin, end - begin))
            header[tensor] = {**entry, "data_offsets": [at, at + end - begin]}
            at += end - begin
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open(os.path.join(out, "model.safetensors"), "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for path, begin, size in tensors:
        with open(path, "rb") as data:
            data.seek(begin)
            file.write(data.read(size))
