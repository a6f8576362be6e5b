"""Makes reference.json: perplexities, a KL divergence and a greedy continuation of the example model, by transformers in fp32.

    python make_reference.py          (needs torch, transformers, tokenizers)
"""
import json
import pathlib

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

here = pathlib.Path(__file__).resolve().parent
examples = here.parents[2] / "examples"
model = AutoModelForCausalLM.from_pretrained(examples / "stories-4m", dtype=torch.float32)
tokenizer = Tokenizer.from_file(str(examples / "stories-4m" / "tokenizer.json"))
text = (examples / "text" / "eval.txt").read_text()


def logits_of(windows):
    with torch.no_grad():
        return model(windows).logits.double()


def perplexity(windows, logits, score_from):
    logp = torch.log_softmax(logits[:, score_from:-1], -1)
    nll = -logp.gather(-1, windows[:, score_from + 1:, None]).squeeze(-1)
    return {"score_from": score_from, "tokens": nll.numel(), "nll": nll.mean().item(), "perplexity": nll.mean().exp().item()}


result = {"ctx": 512, "windows": 4}
for bos in (False, True):
    ids = tokenizer.encode(text, add_special_tokens=bos).ids
    windows = torch.tensor(ids[: 4 * 512]).view(4, 512)
    logits = logits_of(windows)
    result["bos" if bos else "no_bos"] = [perplexity(windows, logits, p) for p in (0, 256)]
result["tokens_in_text"] = len(tokenizer.encode(text, add_special_tokens=False).ids)

prompt = tokenizer.encode("Once upon a time").ids

# Another model for the comparison: the same weights under a larger epsilon in every norm.
windows = torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids[: 4 * 512]).view(4, 512)
a = torch.log_softmax(logits_of(windows)[:, :-1], -1)
for module in model.modules():
    if hasattr(module, "variance_epsilon"):
        module.variance_epsilon = 0.1
b = torch.log_softmax(logits_of(windows)[:, :-1], -1)
for module in model.modules():
    if hasattr(module, "variance_epsilon"):
        module.variance_epsilon = model.config.rms_norm_eps
kl = (a.exp() * (a - b)).sum(-1).flatten()
result["compare"] = {
    "rms_norm_eps_b": 0.1,
    "kl_mean": kl.mean().item(),
    "kl_stderr": (kl.std() / len(kl) ** 0.5).item(),
    "kl_max": kl.max().item(),
    "top1_agreement": (a.argmax(-1) == b.argmax(-1)).double().mean().item(),
    "perplexity_b": (-b.gather(-1, windows[:, 1:, None])).mean().exp().item(),
}

generated = model.generate(torch.tensor([prompt]), max_new_tokens=60, do_sample=False)[0].tolist()
result["greedy"] = {"prompt_ids": prompt, "ids": generated[len(prompt):], "text": tokenizer.decode(generated)}
(here / "reference.json").write_text(json.dumps(result, indent=1) + "\n")
