"""GGUF files in both directions beside llama.cpp: what gptvq export makes, and what gptvq reads of llama.cpp's types."""
import ctypes
import json
import pathlib
import struct

from common import CTX, ROOT, TEXT, WINDOWS, need, options, package, packed_folder, perplexity, require, row, run


def window_ids(o, model):
    ids = json.loads(run(o, "tokenize", model, "--text", TEXT, "--no-bos", "--json", "--quiet"))
    return (ids["ids"] if isinstance(ids, dict) else ids)[: WINDOWS * CTX]


def llama_perplexity(o, file, ids):
    """Of llama.cpp on these windows, every prediction scored."""
    import llama_cpp
    import numpy as np

    model = llama_cpp.Llama(str(file), n_ctx=CTX, n_batch=CTX, logits_all=True, verbose=False, n_threads=o.threads or None)
    nll = 0.0
    for at in range(0, len(ids), CTX):
        window = ids[at:at + CTX]
        model.reset()
        model.eval(window)
        logits = np.asarray(model.scores[:len(window)], np.float64)
        top = logits.max(1, keepdims=True)
        logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
        nll -= logs[np.arange(len(window) - 1), window[1:]].sum()
    model.close()
    return float(np.exp(nll / (len(ids) - WINDOWS)))


def lines():
    """Those of tests/golden/text, as far as they are UTF-8."""
    data = (ROOT / "tests/golden/text/lines.bin").read_bytes()
    at = 4
    for _ in range(struct.unpack_from("<I", data)[0]):
        size, = struct.unpack_from("<I", data, at)
        line = data[at + 4:at + 4 + size]
        at += 4 + size
        try:
            line.decode()
        except UnicodeDecodeError:
            continue
        yield line


def tokens(o, folder, file, version):
    """Ids of each line."""
    import llama_cpp

    ours = package(o).Tokenizer(folder)
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), params)
    vocab, same, count = llama_cpp.llama_model_get_vocab(model), 0, 0
    for line in lines():
        buffer = (ctypes.c_int32 * (len(line) + 16))()
        n = llama_cpp.llama_tokenize(vocab, line, len(line), buffer, len(buffer), False, True)
        count += 1
        same += list(buffer[:max(n, 0)]) == ours.encode(line, special=False)
    llama_cpp.llama_model_free(model)
    row(version, "tokens of the lines of tests/golden/text; peer: lines that are the same in llama.cpp", count, same)
    require(same == count, f"{count - same} lines of {count} have other tokens in llama.cpp")


def main():
    o = options()
    if not need("llama_cpp", "numpy"):
        return
    import llama_cpp

    version = "llama.cpp (llama-cpp-python " + llama_cpp.__version__ + ")"
    packed = packed_folder(o)
    ids = window_ids(o, packed)
    for kind in ("f16", "q8_0"):
        file = o.scratch / f"{kind}.gguf"
        run(o, "export", packed, "-o", file, "--format", "gguf", "--type", kind, "--quiet", "--force")
        ours = perplexity(o, packed if kind == "f16" else file)  # Q8_0 loses something of its own
        theirs = llama_perplexity(o, file, ids)
        require(abs(theirs / ours - 1) < 0.005, f"perplexity {theirs} in llama.cpp, {ours} here")
        row(version, f"perplexity of export --format gguf --type {kind}; within 0.5 %", f"{ours:.4f}", f"{theirs:.4f}")
    tokens(o, packed, o.scratch / "f16.gguf", version)
    for peer in filter(None, o.peer.split(",")):
        name = pathlib.Path(peer).name
        mine, theirs = perplexity(o, peer), llama_perplexity(o, peer, ids)
        row(version, f"perplexity of {name} as it is read", f"{mine:.4f}", f"{theirs:.4f}")
        require(abs(theirs / mine - 1) < 0.02, f"perplexity {theirs} of {peer} in llama.cpp, {mine} here")
    for peer in filter(None, o.peer.split(",")[:1]):  # quantizing it is quantizing the folder that it is read as
        run(o, "export", peer, "-o", o.scratch / "plain", "--format", "hf", "--quiet")
        for source, out in ((peer, "of-file"), (o.scratch / "plain", "of-folder")):
            run(o, "quantize", source, "-o", o.scratch / out, "--method", "rtn", "--bits", "4.25", "--quiet")
        mine, other = (perplexity(o, o.scratch / out) for out in ("of-file", "of-folder"))
        require(mine == other, f"perplexity {mine} of the packed file, {other} of the packed folder")
        row("gptvq", f"perplexity of quantize {pathlib.Path(peer).name}; peer: of its export --format hf", f"{mine:.4f}", f"{other:.4f}")


if __name__ == "__main__":
    main()
