"""Makes folders.json: what transformers makes of config.json's many spellings, as the mean nll of the example model in fp32 on the
first two windows of 256 tokens of examples/text/eval.txt.

    python make_folders.py          (needs torch, transformers, tokenizers)

Each case is a set of keys put into the example's config.json.
"""
import json
import pathlib
import tempfile

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

here = pathlib.Path(__file__).resolve().parent
examples = here.parents[2] / "examples"
source = examples / "stories-4m"
config = json.loads((source / "config.json").read_text())
tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
ids = tokenizer.encode((examples / "text" / "eval.txt").read_text(), add_special_tokens=False).ids
windows = torch.tensor(ids[: 2 * 256]).view(2, 256)

linear = {"rope_type": "linear", "factor": 4.0}
llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
mistral = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 16}
half = ["full_attention", "sliding_attention"] * 2
cases = {
    "as it is": {},
    "scaling beside parameters": {"rope_scaling": linear},
    "scaling by its old name": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "scaling beside other scaling": {"rope_scaling": linear, "rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
    "no scaling beside scaling": {"rope_scaling": {"rope_type": "default"}, "rope_parameters": {**linear, "rope_theta": 1e4}},
    "empty scaling": {"rope_scaling": {}, "rope_parameters": {**linear, "rope_theta": 1e4}},
    "null scaling": {"rope_scaling": None, "rope_parameters": {**linear, "rope_theta": 1e4}},
    "theta of the scaling": {"rope_scaling": {**linear, "rope_theta": 1e3}, "rope_theta": 5e5},
    "theta beside the scaling": {"rope_scaling": linear, "rope_theta": 1e3},
    "theta of the parameters does not count": {"rope_scaling": linear, "rope_parameters": {"rope_theta": 1e3}},
    "llama3 scaling": {"rope_scaling": {**llama3, "original_max_position_embeddings": 32}},
    "original length of the config": {"rope_scaling": {**llama3, "original_max_position_embeddings": 512},
                                      "original_max_position_embeddings": 32},
    "original length nowhere": {"rope_scaling": llama3, "max_position_embeddings": 32},
    "llama rotates all of a head": {"partial_rotary_factor": 0.5},
    "mistral": mistral,
    "mistral has no switch": {**mistral, "use_sliding_window": False},
    "mistral has no first layer": {**mistral, "use_sliding_window": True, "max_window_layers": 3},
    "mistral has kinds of layers": {**mistral, "layer_types": half},
    "mistral without a window": {**mistral, "sliding_window": None},
    "llama has no window": {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 0, "layer_types": half},
}

result = []
for name, changes in cases.items():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "model.safetensors").symlink_to(source / "model.safetensors")
        changed = {**config, **changes}
        (folder / "config.json").write_text(json.dumps(changed))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        logp = torch.log_softmax(model(windows).logits.double()[:, :-1], -1)
    nll = -logp.gather(-1, windows[:, 1:, None]).mean().item()
    print(f"{name:42} {type(model).__name__:24} {nll:.6f}")
    result.append({"name": name, "changes": changes, "nll": nll})
(here / "folders.json").write_text(json.dumps(result, indent=1) + "\n")
