#!/usr/bin/env python3
"""Writes spm.gguf and bpe.gguf with the `gguf` package: models of one block and random weights in several types, with a SentencePiece
vocabulary that has scores, and with one of byte-level BPE. Seeds of tests/fuzz, and what tests/cli/gguf_in.sh damages.

    python3 tests/golden/gguf/make_files.py       needs gguf and numpy"""
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T, GGUFWriter
from gguf.quants import quantize

HERE = Path(__file__).resolve().parent
HIDDEN, HEADS = 32, 2
NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6


def tensors(writer, random, vocab, wide, kinds, qkv_bias):
    def matrix(name, rows, cols, kind):
        values = random.normal(0, 0.1, (rows, cols)).astype("<f4")
        if kind == T.F32:
            writer.add_tensor(name, values)
        elif kind == T.F16:
            writer.add_tensor(name, values.astype("<f2"))
        else:
            data = quantize(values, kind)
            writer.add_tensor(name, data, raw_shape=data.shape, raw_dtype=kind)

    names = [("attn_q", HIDDEN, HIDDEN), ("attn_k", HIDDEN, HIDDEN), ("attn_v", HIDDEN, HIDDEN), ("attn_output", HIDDEN, HIDDEN), ("ffn_gate", wide, HIDDEN),
             ("ffn_up", wide, HIDDEN), ("ffn_down", HIDDEN, wide)]
    matrix("token_embd.weight", vocab, HIDDEN, T.Q8_0)
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, "<f4"))
    for norm in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{norm}.weight", random.normal(1, 0.1, HIDDEN).astype("<f4"))
    for i, (name, rows, cols) in enumerate(names):
        matrix(f"blk.0.{name}.weight", rows, cols, kinds[i % len(kinds)])
        if qkv_bias and i < 3:
            writer.add_tensor(f"blk.0.{name}.bias", random.normal(0, 0.1, rows).astype("<f4"))


def sizes(writer, wide):
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def spm(random):
    words = ["▁", "a", "b", "n", "▁a", "an", "▁b", "▁an", "ana", "▁ban", "ban", "ä", "▁ä"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + words + ["<|user|>"]
    scores = [0.0] * 3 + [0.0] * 256 + [-float(i + 1) for i in range(len(words))] + [-1000.0]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(words) + [USER]
    writer = GGUFWriter(HERE / "spm.gguf", "llama")
    sizes(writer, 64)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{% for m in messages %}<|user|>{{ m.content }}{% endfor %}")
    tensors(writer, random, len(tokens), 64, [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.F16, T.F32], False)
    finish(writer)


def bpe(random):
    visible = list(range(ord("!"), ord("~") + 1)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    letters = {b: chr(b) for b in visible}
    for n, b in enumerate(b for b in range(256) if b not in letters):
        letters[b] = chr(256 + n)
    merges = ["a n", "Ġ b", "an a", "Ġb ana"]
    tokens = [letters[b] for b in range(256)] + [m.replace(" ", "") for m in merges] + ["<|im_start|>", "<|im_end|>"]
    writer = GGUFWriter(HERE / "bpe.gguf", "qwen2")
    sizes(writer, 32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([NORMAL] * (len(tokens) - 2) + [CONTROL] * 2)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    tensors(writer, random, len(tokens), 32, [T.Q8_0, T.BF16, T.Q4_0], True)
    finish(writer)


if __name__ == "__main__":
    random = np.random.default_rng(1)
    spm(random)
    bpe(random)
