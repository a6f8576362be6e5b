#!/usr/bin/env python3
"""Exports the tiny models of tests/golden/model and the tokenizers of tests/golden/text as GGUF files, has llama.cpp read them, and writes
sums.txt, which tests/cli/gguf.sh compares with.

    python3 tests/golden/gguf/check.py build/release/gptvq       needs llama-cpp-python, numpy and tokenizers

Of each model: llama.cpp's logits of the golden token ids against the true ones of golden.bin (made with transformers in float64). Of each tokenizer:
llama.cpp's ids of every line of lines.bin against those of the `tokenizers` package. Nothing is written where they differ by more than
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
from tokenizers import Tokenizer

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
    # dynamic scaling is not for llama.cpp beyond the original context; it takes LongRoPE's long factors, its contexts being whole 256s
    name = "golden-short.bin" if "dynamic" in folder.name else "golden.bin"
    ids, true, bf16 = golden(folder / name)
    window = json.loads((folder / "config.json").read_text()).get("sliding_window")
    if window and folder.name != "gemma2":  # it knows none in these: right as far as the context that the file says
        ids, true = ids[:window], true[:window]
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


def check_tokenizer(program, name, scratch):
    folder = scratch / f"{name}-folder"
    shutil.copytree(MODELS / "llama", folder)
    tokenizer = json.loads((TEXT / f"{name}.json").read_text())
    if tokenizer["model"].get("byte_fallback"):  # llama.cpp aborts where a byte has no token
        for byte in range(256):
            tokenizer["model"]["vocab"].setdefault(f"<0x{byte:02X}>", len(tokenizer["model"]["vocab"]) + 64)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    oracle = Tokenizer.from_file(str(folder / "tokenizer.json"))
    size = 1 + max([max(tokenizer["model"]["vocab"].values())] + [t["id"] for t in tokenizer["added_tokens"]])
    widen(folder, size + 3)
    path = folder / "model.gguf"
    run = export(program, folder, path)
    if run.returncode != 0:
        print(f"{name}: {run.stderr.strip()}")
        return None
    params = L.llama_model_default_params()
    params.vocab_only = True
    model = L.llama_model_load_from_file(str(path).encode(), params)
    vocab = L.llama_model_get_vocab(model)
    same = {False: 0, True: 0}
    seen = {False: 0, True: 0}
    for text in lines():
        try:
            ids = oracle.encode(text.decode("utf-8"), add_special_tokens=False).ids
        except UnicodeDecodeError:
            continue
        buffer = (ctypes.c_int32 * (len(text) + 16))()
        n = L.llama_tokenize(vocab, text, len(text), buffer, len(buffer), False, True)
        # llama.cpp normalizes nothing (NFC of Qwen), has no added tokens that take the space beside them, knows marks less well, and puts a space
        # even before a text that begins with one; Gemma's added tokens of several spaces are found before BPE sees them
        plain = text.isascii() and text[:1] > b" " and b"<" not in text and b"  " not in text
        seen[plain] += 1
        same[plain] += list(buffer[:max(n, 0)]) == ids
    L.llama_model_free(model)
    print(f"{name}: {same[True]} of {seen[True]} plain lines, {same[False]} of {seen[False]} others")
    return same[True] == seen[True]


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


TOKENIZERS = ("gemma", "llama2", "llama3", "mistral", "o200k", "phi3", "qwen2")


def main():
    program = sys.argv[1]
    quiet = L.llama_log_callback(lambda level, text, user: None)
    L.llama_log_set(quiet, None)
    L.llama_backend_init()
    scratch = Path(tempfile.mkdtemp())
    bad, sums = [], []
    for folder in sorted(p for p in MODELS.iterdir() if p.is_dir()):
        fine = check_model(program, folder, scratch)
        if fine:
            sums.append((folder.name, scratch / f"{folder.name}.gguf"))
        elif fine is False:
            bad.append(folder.name)
    bad += [name for name in TOKENIZERS if not check_tokenizer(program, name, scratch)]
    if bad:
        sys.exit(f"nothing is written: {bad}")
    (HERE / "sums.txt").write_text("".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}  {name}\n" for name, path in sums))
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
