#!/usr/bin/env python3
"""Prints what transformers makes of the example model's tensors under other names, in other types and with others beside
them: the mean negative log likelihood of two windows of 256 tokens of examples/text/eval.txt, each predicted from its
own start. The constants of tests/unit/test_variants.c are from here (transformers 5.24, fp32).

    python make_variants.py          (needs torch, transformers, safetensors)
"""
import json
import pathlib
import tempfile

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

examples = pathlib.Path(__file__).resolve().parents[3] / "examples"
source = examples / "stories-4m"
text = (examples / "text" / "eval.txt").read_text()
ids = Tokenizer.from_file(str(source / "tokenizer.json")).encode(text, add_special_tokens=False).ids
ids = torch.tensor(ids[: 2 * 256]).view(2, 256)
tensors = load_file(source / "model.safetensors")
config = json.loads((source / "config.json").read_text())


def variant(name, change, **keys):
    """`change` gets a copy of the tensors; a key that is None is left out of config.json."""
    changed = change(dict(tensors)) or tensors
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        save_file({k: v.contiguous().clone() for k, v in changed.items()}, folder / "model.safetensors", metadata={"format": "pt"})
        both = {k: v for k, v in {**config, **keys}.items() if v is not None}
        (folder / "config.json").write_text(json.dumps(both))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            logits = model(ids).logits.double()
    nll = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    print(f"{name:24} {nll.item():.9f}")


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
embedding, head = tensors[EMBEDDING], tensors[HEAD]
stripped = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
headless = {name: tensor for name, tensor in stripped.items() if name != HEAD}
types = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
zero = {"model.layers.0.self_attn.q_proj.bias": torch.zeros(256), "model.layers.3.attention.masked_bias": torch.tensor(-1e9)}

variant("as it is", lambda t: t)
variant("tied, own head", lambda t: t, tie_word_embeddings=True)
variant("tied, own fp32 head", lambda t: {**t, HEAD: head.float()}, tie_word_embeddings=True)
variant("tied, equal head", lambda t: {**t, HEAD: embedding}, tie_word_embeddings=True)
variant("tied, equal fp32 head", lambda t: {**t, HEAD: embedding.float()}, tie_word_embeddings=True)
variant("tied, head alone", lambda t: {HEAD: embedding, **{k: v for k, v in t.items() if k not in (HEAD, EMBEDDING)}}, tie_word_embeddings=True)
variant("no architectures", lambda t: t, architectures=None)
variant("no prefix", lambda t: stripped)
variant("one without prefix", lambda t: {("norm.weight" if k == "model.norm.weight" else k): v for k, v in t.items()})
variant("LlamaModel", lambda t: stripped, architectures=["LlamaModel"])
variant("LlamaModel, tied", lambda t: headless, architectures=["LlamaModel"], tie_word_embeddings=True)
variant("extra tensors", lambda t: {**t, **zero})
variant("fp64", lambda t: {k: v.double() for k, v in t.items()})
variant("four types", lambda t: {k: t[k].to(types[i % 4]) for i, k in enumerate(sorted(t))})
