#!/usr/bin/env python3
"""Exports the tiny models of tests/golden/model and the tokenizers of tests/golden/text as GGUF files, has llama.cpp read them, and writes
sums.txt, which tests/cli/export.sh compares with.

    python3 tests/golden/gguf/check.py build/release/gptvq       needs gguf, llama-cpp-python and numpy

Of each model: llama.cpp's logits of the golden token ids against the true ones of golden.bin (made with transformers in float64). Of each tokenizer:
llama.cpp's ids of every line of lines.bin against those of the `tokenizers` package in NAME.bin. Nothing is written where they differ by more than
said below."""
import ctypes
import hashlib
import json
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp as L
import numpy as np

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "model"
TEXT = HERE.parent / "text"
# llama.cpp keeps keys and values in F16 unless told otherwise, and its products round activations: bf16 weights are kept as they are, so
# that what is left is its arithmetic. The bound is four times transformers' own bf16 error, which golden.bin holds.
BOUND = 4


def golden(path):
    data = path.read_bytes()
    assert data[:8] == b"GPTVQGM1"
    tokens, vocab = struct.unpack_from("<II", data, 8)
    _, bf16 = struct.unpack_from("<dd", data, 16)
    ids = np.frombuffer(data, "<i4", tokens, 32)
    return ids, np.frombuffer(data, "<f8", tokens * vocab, 32 + 4 * tokens).reshape(tokens, vocab), bf16


def logits(path, ids):
    model = L.llama_model_load_from_file(str(path).encode(), L.llama_model_default_params())
    if not model:
        return None
    params = L.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = max(64, len(ids))
    params.type_k = params.type_v = 0  # F32
    params.flash_attn_type = 0
    context = L.llama_init_from_model(model, params)
    batch = L.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = int(token), i, 1, 0, 1
    assert L.llama_decode(context, batch) == 0
    vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))
    out = np.array([np.ctypeslib.as_array(L.llama_get_logits_ith(context, i), (vocab,)).copy() for i in range(len(ids))])
    L.llama_batch_free(batch)
    L.llama_free(context)
    L.llama_model_free(model)
    return out


def export(program, folder, out, *options):
    return subprocess.run([program, "export", str(folder), "-o", str(out), "--format", "gguf", "--force", "--quiet", *options], capture_output=True, text=True)


def check_model(program, folder, scratch):
    path = scratch / f"{folder.name}.gguf"
    run = export(program, folder, path, "--type", "bf16")
    if run.returncode != 0:
        print(f"{folder.name}: {run.stderr.strip()}")
        return None
    name = "golden-short.bin" if (folder / "golden-short.bin").exists() else "golden.bin"
    ids, true, bf16 = golden(folder / name)
    got = logits(path, ids)
    if got is None:
        print(f"{folder.name}: llama.cpp cannot open it")
        return False
    error = np.abs(got - true).max()
    print(f"{folder.name}: {len(ids)} tokens, error {error:.2e}, transformers in bf16 {bf16:.2e}")
    return bool(error <= BOUND * bf16)


def lines():
    data = (TEXT / "lines.bin").read_bytes()
    count, at, out = struct.unpack_from("<I", data)[0], 4, []
    for _ in range(count):
        size, = struct.unpack_from("<I", data, at)
        out.append(data[at + 4:at + 4 + size])
        at += 4 + size
    return out


def expected(name, count):
    data, at = (TEXT / f"{name}.bin").read_bytes(), 4
    out = []

    def take(form):
        nonlocal at
        values = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return values

    for _ in range(2):
        n, = take("H")
        take(f"{n}H")
    take("I")
    for _ in range(count):
        n, = take("H")
        out.append(list(take(f"{n}H")))
        take("II")
    return out


def check_tokenizer(program, name, scratch):
    folder = scratch / f"{name}-folder"
    shutil.copytree(MODELS / "llama", folder)
    tokenizer = json.loads((TEXT / f"{name}.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    size = 1 + max([max(tokenizer["model"]["vocab"].values())] + [t["id"] for t in tokenizer["added_tokens"]])
    widen(folder, size + 3)
    path = scratch / f"{name}.gguf"
    run = export(program, folder, path)
    if run.returncode != 0:
        print(f"{name}: {run.stderr.strip()}")
        return None
    params = L.llama_model_default_params()
    params.vocab_only = True
    model = L.llama_model_load_from_file(str(path).encode(), params)
    vocab = L.llama_model_get_vocab(model)
    texts = lines()
    wanted, same, judged = expected(name, len(texts)), 0, 0
    for text, ids in zip(texts, wanted):
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            continue
        judged += 1
        buffer = (ctypes.c_int32 * (len(text) + 16))()
        n = L.llama_tokenize(vocab, text, len(text), buffer, len(buffer), False, True)
        if list(buffer[:max(n, 0)]) == ids:
            same += 1
        elif judged - same < 4:
            print(name, text[:60], list(buffer[:n])[:12], ids[:12])
    L.llama_model_free(model)
    print(f"{name}: {same} of {judged} lines")
    return same, judged


def widen(folder, vocab):
    """Rows of zeros for as many tokens."""
    config = json.loads((folder / "config.json").read_text())
    hidden, old = config["hidden_size"], config["vocab_size"]
    config["vocab_size"] = vocab
    (folder / "config.json").write_text(json.dumps(config))
    data = (folder / "model.safetensors").read_bytes()
    size, = struct.unpack_from("<Q", data)
    head = json.loads(data[8:8 + size])
    body, new, at = b"", {}, 0
    for name, entry in head.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[8 + size + begin:8 + size + end]
        if entry["shape"] == [old, hidden]:
            entry["shape"] = [vocab, hidden]
            raw = (raw + bytes(vocab * hidden * 4))[:len(raw) // old * vocab]
        new[name] = dict(entry, data_offsets=[at, at + len(raw)])
        body, at = body + raw, at + len(raw)
    text = json.dumps(new).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)


def main():
    program = sys.argv[1]
    quiet = L.llama_log_callback(lambda level, text, user: None)
    L.llama_log_set(quiet, None)
    L.llama_backend_init()
    scratch = Path(tempfile.mkdtemp())
    names = [p.name for p in sorted(MODELS.iterdir()) if p.is_dir()]
    bad = [name for name in names if check_model(program, MODELS / name, scratch) is False]
    for path in sorted(TEXT.glob("*.json")):
        check_tokenizer(program, path.stem, scratch)
    shutil.rmtree(scratch)
    print("bad:", bad)


if __name__ == "__main__":
    main()
