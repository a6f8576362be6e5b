#!/usr/bin/env python3
"""Makes the tiny random models and golden logits that tests/unit/test_model.c reads.

    python3 tests/golden/model/make_models.py [NAME…]    needs torch, transformers 5 and safetensors; NAME: these folders only

Each folder is a Hugging Face model written by save_pretrained, with weights scaled so that every part of the forward pass matters, and
one or two files golden*.bin (little-endian):

    8 bytes "GPTVQGM1", u32 tokens, u32 vocabulary,
    f64 largest |fp32 logits - true logits| of transformers itself, f64 the same for its bf16 logits,
    i32 token ids [tokens], f64 true logits [tokens][vocabulary]

The true logits come from the same transformers code run with every float32 in it replaced by float64.
greedy.txt holds greedy continuations of examples/stories-4m: per line "count id … count id …" (prompt, continuation).
"""
import contextlib
import importlib
import json
import shutil
import struct
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer
from transformers import Ernie4_5Config, Glm4Config, GlmConfig, GraniteConfig, GraniteMoeHybridConfig, Ministral3Config, MinistralConfig, Mistral3Config, SeedOssConfig
from transformers import (Exaone4Config, Gemma2Config, Gemma3Config, Gemma3TextConfig, GemmaConfig, LlamaConfig, MistralConfig, MixtralConfig, Olmo2Config,
                          Olmo3Config, Phi3Config, Qwen2Config, Qwen3Config, SmolLM3Config)
from transformers import DeepseekV2Config, DeepseekV3Config, GptOssConfig, OlmoeConfig, Qwen2MoeConfig, Qwen3MoeConfig
from transformers.integrations.mxfp4 import convert_moe_packed_tensors
from transformers import Qwen3_5Config, Qwen3_5MoeConfig, Qwen3_5MoeTextConfig, Qwen3_5TextConfig, Qwen3NextConfig

HERE = Path(__file__).resolve().parent
SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None,
             tie_word_embeddings=False)


class Double:
    """The torch module, but its float32 is float64."""
    float = float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextlib.contextmanager
def everything_in_double(model_types):
    packages = {model_type.removesuffix("_text") for model_type in model_types}
    modules = [*(importlib.import_module(f"transformers.models.{package}.modeling_{package}") for package in packages),
               importlib.import_module("transformers.modeling_rope_utils")]
    to_float = torch.Tensor.float
    default = torch.get_default_dtype()
    try:
        for module in modules:
            module.torch = Double()
        torch.Tensor.float = torch.Tensor.double
        torch.set_default_dtype(torch.float64)
        yield
    finally:
        torch.set_default_dtype(default)
        torch.Tensor.float = to_float
        for module in modules:
            module.torch = torch


def auto_class(config):
    return AutoModelForImageTextToText if config.model_type in ("mistral3", "qwen3_5", "qwen3_5_moe") else AutoModelForCausalLM


def run(folder, ids, dtype, model_types=None):
    def load():
        model = auto_class(AutoConfig.from_pretrained(folder)).from_pretrained(folder, dtype=dtype, attn_implementation="eager")
        model.set_experts_implementation("eager") if hasattr(model.config.get_text_config(), "num_experts_per_tok") else None
        return model.eval()

    with torch.no_grad():
        if dtype != torch.float64:
            return load()(torch.tensor([ids])).logits[0].double()
        with everything_in_double(model_types):
            model = load()
            wrong = []

            def check(module, inputs, output):
                for t in output if isinstance(output, tuple) else (output,):
                    if isinstance(t, torch.Tensor) and t.is_floating_point() and t.dtype != torch.float64:
                        wrong.append(type(module).__name__)

            for module in model.modules():
                module.register_forward_hook(check)
            logits = model(torch.tensor([ids])).logits[0]
            assert not wrong, wrong
            return logits


def less_one(model_type, name):
    """Is it a norm whose gain is stored less one?"""
    return model_type.startswith("gemma") or (model_type.startswith(("qwen3_5", "qwen3_next")) and "linear_attn" not in name)


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, p in [*model.named_parameters(), *((n, b) for n, b in model.named_buffers() if n.endswith("correction_bias"))]:
        noise = torch.randn(p.shape, generator=generator)
        with torch.no_grad():
            if "embed_tokens" in name:
                p.copy_(noise)
            elif name.endswith("A_log"):
                p.copy_(0.5 * noise - 1)  # states that remember several tokens
            elif name.endswith("bias"):
                p.copy_(0.3 * noise)
            elif name.endswith("sinks"):
                p.copy_(noise)
            elif name.endswith("experts.gate_up_proj") and model.config.model_type == "gpt_oss":
                p.copy_(noise)  # large enough to meet the limits of the activation
            elif p.dim() == 1:
                p.copy_((0 if less_one(model.config.model_type, name) else 1) + 0.2 * noise)
            else:
                p.copy_(noise * 1.3 / p.shape[-1] ** 0.5)


def write_golden(folder, file, count, seed, model_types, source):
    vocabulary = AutoConfig.from_pretrained(source).get_text_config().vocab_size
    ids = torch.randint(0, vocabulary, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    truth = run(source, ids, torch.float64, model_types)
    error = (run(source, ids, torch.float32) - truth).abs().max().item()
    error_bf16 = (run(source, ids, torch.bfloat16) - truth).abs().max().item()
    print(f"{folder.name}/{file}: {count} tokens, |logits| up to {truth.abs().max():.2f}, "
          f"fp32 error {error:.2e}, bf16 error {error_bf16:.2e}")
    assert 0 < error < 1e-4 and error < error_bf16
    with open(folder / file, "wb") as out:
        out.write(b"GPTVQGM1" + struct.pack("<IIdd", count, vocabulary, error, error_bf16))
        out.write(struct.pack(f"<{count}i", *ids))
        out.write(truth.contiguous().numpy().tobytes())


def old_style(folder, **extra):
    """The config.json that the hub's older models have."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    if "sliding_attention" in rope:
        if config["model_type"].startswith("gemma3"):
            config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    rope.pop("partial_rotary_factor", None)
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    config.update(extra)
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "remove"}, indent=2, sort_keys=True) + "\n")


def add_tensors(folder, extra):
    path = folder / "model.safetensors"
    save_file({**load_file(path), **extra}, path, metadata={"format": "pt"})


def make(name, config, dtype=torch.bfloat16, seed=0, count=40, old=None, shard=None, goldens=None, change=None, extra=None, mxfp4=False, fp8=None, text=0, **how):
    if sys.argv[1:] and name not in sys.argv[1:]:
        return
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model = auto_class(config).from_config(config, attn_implementation="eager")
    randomise(model, 1000 + seed)
    model.to(dtype).save_pretrained(folder, **({"max_shard_size": shard} if shard else {}), **how)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if old is not None:
        old_style(folder, **old)
    if change is not None:
        config_json = json.loads((folder / "config.json").read_text())
        config_json.update(change)
        (folder / "config.json").write_text(json.dumps(config_json, indent=2, sort_keys=True) + "\n")
    if extra is not None:
        add_tensors(folder, extra)
    source = as_mxfp4(folder, 3000 + seed) if mxfp4 else as_fp8(folder, fp8) if fp8 else folder
    for file, tokens in (goldens or {"golden.bin": count}).items():
        write_golden(folder, file, tokens, 2000 + seed + text, {config.model_type, config.get_text_config().model_type}, source)
    size = sum(f.stat().st_size for f in folder.iterdir())
    assert size < 100_000, (name, size)


def as_mxfp4(folder, seed):
    """Random MXFP4 experts in place of the folder's, as openai's own folders have them; returns a folder of the same numbers in bf16."""
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(folder / "model.safetensors")
    plain = Path(tempfile.mkdtemp())
    shutil.copy(folder / "config.json", plain)
    decoded = dict(tensors)
    for name in [n for n in tensors if n.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, cols, rows = tensors.pop(name).shape
        blocks = torch.randint(0, 256, (experts, rows, cols // 32, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(123, 126, (experts, rows, cols // 32), generator=generator, dtype=torch.uint8)
        tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = blocks, scales
        decoded[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.bfloat16).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(decoded, plain / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router"]}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return plain


def as_fp8(folder, block):
    """The folder's matrices as e4m3 numbers with a scale for each block, as DeepSeek's own folders have them; returns a folder of the same numbers in bf16."""
    tensors = load_file(folder / "model.safetensors")
    plain = Path(tempfile.mkdtemp())
    shutil.copy(folder / "config.json", plain)
    decoded = dict(tensors)
    for name in [n for n in tensors if ".layers." in n and n.endswith("_proj.weight") or "kv_a_proj" in n]:
        rows, cols = tensors[name].shape
        scales = torch.empty(-(-rows // block), -(-cols // block))
        whole = torch.empty(rows, cols)
        weight = tensors[name].float()
        for i in range(scales.shape[0]):
            for j in range(scales.shape[1]):
                part = slice(i * block, (i + 1) * block), slice(j * block, (j + 1) * block)
                scales[i, j] = weight[part].abs().max() / 448
                whole[part] = scales[i, j]
        tensors[name] = (weight / whole).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scales
        decoded[name] = (tensors[name].float() * whole).bfloat16()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(decoded, plain / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [block, block]}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return plain


def rope(kind="default", theta=10000.0, **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


def greedy():
    folder = HERE.parents[2] / "examples" / "stories-4m"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    lines = []
    for prompt in ("Once upon a time", "The little dog was very", "Lily and Tom went to the park. They"):
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        begin, margin = list(ids), float("inf")
        with torch.no_grad():
            while len(ids) < len(begin) + 64:
                top = model(torch.tensor([ids])).logits[0, -1].topk(2)
                margin = min(margin, (top.values[0] - top.values[1]).item())
                ids.append(top.indices[0].item())
        print(f"greedy: {prompt!r} … {tokenizer.decode(ids[len(begin):])!r}, smallest margin {margin:.4f}")
        assert margin > 2e-3, "a tie that rounding could decide: choose another prompt"
        lines.append(" ".join(map(str, [len(begin), *begin, 64, *ids[len(begin):]])))
    (HERE / "greedy.txt").write_text("\n".join(lines) + "\n")


def main():
    torch.manual_seed(0)
    make("llama", LlamaConfig(**SIZES), seed=1)
    # Llama 1: as many key-value heads as heads and no key that says so; tied embeddings; fp16
    make("llama-tied", LlamaConfig(**{**SIZES, "num_key_value_heads": 4, "tie_word_embeddings": True}), torch.float16, 2,
         old={"num_key_value_heads": "remove", "head_dim": "remove"})
    make("llama-head-dim-bias", LlamaConfig(**{**SIZES, "hidden_size": 24, "intermediate_size": 40}, head_dim=10,
                                            attention_bias=True, mlp_bias=True), torch.float32, 3)
    llama3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
    make("llama3-rope", LlamaConfig(**{**SIZES, "num_attention_heads": 2, "num_key_value_heads": 1},
                                    rope_parameters=rope("llama3", 500.0, **llama3)), seed=4, count=60, old={})
    make("llama-linear-rope", LlamaConfig(**SIZES, rope_parameters=rope("linear", factor=4.0)), seed=5, count=60, old={})
    make("llama-sharded", LlamaConfig(**SIZES), seed=6, count=8, shard="16KB")
    make("mistral", MistralConfig(**SIZES, sliding_window=7), seed=7, count=60)
    make("qwen2", Qwen2Config(**SIZES, rope_parameters=rope(theta=1000000.0)), seed=8)
    make("qwen2-window", Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=5, max_window_layers=1), seed=9, old={})
    make("qwen3", Qwen3Config(**SIZES, head_dim=16), seed=10)
    make("phi3", Phi3Config(**SIZES, sliding_window=9), seed=11, old={})
    long = dict(short_factor=[1.0, 1.5], long_factor=[2.0, 5.0], original_max_position_embeddings=32)
    make("phi3-longrope", Phi3Config(**SIZES, original_max_position_embeddings=32,
                                     rope_parameters=rope("longrope", partial_rotary_factor=0.5, **long)), seed=12,
         goldens={"golden.bin": 60, "golden-short.bin": 24})
    make("mixtral", MixtralConfig(**{**SIZES, "intermediate_size": 32}, num_local_experts=4, num_experts_per_tok=2), seed=13)
    # caps that bend scores and logits; keys and spellings of the hub's configs
    gemma = {**SIZES, "vocab_size": 48, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 4, "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 7,
             "tie_word_embeddings": True}
    make("gemma2", Gemma2Config(**gemma, attn_logit_softcapping=4.0, final_logit_softcapping=20.0), seed=14, count=60,
         old={"layer_types": "remove", "tie_word_embeddings": "remove", "hidden_act": "gelu_pytorch_tanh"})
    make("gemma2-uncapped", Gemma2Config(**{**gemma, "tie_word_embeddings": False}, attention_bias=True,
                                         attn_logit_softcapping=None, final_logit_softcapping=None,
                                         layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"]),
         seed=15)
    delta = {**SIZES, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 4, "head_dim": 16,
             "linear_key_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_value_head_dim": 12,
             "pad_token_id": 0}
    make("qwen3_5", Qwen3_5TextConfig(**delta), seed=16, change={"layer_types": None, "full_attention_interval": 4})
    # as the hub has them: inside of a model that sees pictures, with a head for a further token; tied embeddings
    text = {**delta, "linear_num_value_heads": 2, "linear_value_head_dim": 8, "tie_word_embeddings": True,
            "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"]}
    sees = dict(depth=1, hidden_size=8, intermediate_size=8, num_heads=2, patch_size=2, out_hidden_size=24, num_position_embeddings=4,
                spatial_merge_size=1)
    make("qwen3_5-inner", Qwen3_5Config(text_config=text, vision_config=sees, tie_word_embeddings=True), seed=17,
         extra={"mtp.fc.weight": torch.ones(24, 48, dtype=torch.bfloat16)})
    # the same with experts: a tensor for each, and one for all of a layer as the hub has them
    mixed = {**{k: v for k, v in delta.items() if k != "intermediate_size"}, "vocab_size": 40, "hidden_size": 16, "moe_intermediate_size": 8, "num_experts": 4,
             "num_experts_per_tok": 2, "shared_expert_intermediate_size": 12, "num_attention_heads": 2, "num_key_value_heads": 1}
    make("qwen3_5-moe", Qwen3_5MoeTextConfig(**mixed), seed=18, count=30, change={"layer_types": None, "full_attention_interval": 4, "attn_output_gate": True})
    make("qwen3_5-moe-inner", Qwen3_5MoeConfig(text_config={**mixed, "linear_num_value_heads": 2, "linear_value_head_dim": 8}, vision_config={**sees, "out_hidden_size": 16}), seed=19, count=30,
         save_original_format=False, extra={"mtp.layers.0.mlp.experts.down_proj": torch.ones(2, 16, 8, dtype=torch.bfloat16)})
    # rows of in_proj_qkvz by key head; layers without experts
    make("qwen3-next", Qwen3NextConfig(**mixed, intermediate_size=32, rope_parameters=rope(partial_rotary_factor=0.25)), seed=36, count=30, old={"layer_types": "remove"},
         extra={"mtp.fc.weight": torch.ones(16, 32, dtype=torch.bfloat16)})
    make("qwen3-next-dense", Qwen3NextConfig(**{**mixed, "linear_num_key_heads": 1, "linear_num_value_heads": 3}, intermediate_size=32, norm_topk_prob=False,
                                             mlp_only_layers=[1], attention_bias=True,
                                             layer_types=["full_attention", "linear_attention", "linear_attention", "full_attention"]),
         seed=37, count=30, save_original_format=False)
    # experts in some layers, one MLP in others; a tensor for each expert, and one for all
    sparse = {**SIZES, "vocab_size": 48, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 4, "moe_intermediate_size": 16,
              "num_experts": 5, "num_experts_per_tok": 2}
    make("qwen3-moe", Qwen3MoeConfig(**sparse, head_dim=8, norm_topk_prob=True, mlp_only_layers=[1]), seed=20)
    make("qwen3-moe-fused", Qwen3MoeConfig(**sparse, head_dim=6, norm_topk_prob=False, decoder_sparse_step=2, attention_bias=True), seed=21,
         save_original_format=False)
    make("qwen2-moe", Qwen2MoeConfig(**{**sparse, "num_experts": 4}, shared_expert_intermediate_size=20, norm_topk_prob=False), seed=22, old={})
    make("olmoe", OlmoeConfig(**{**SIZES, "vocab_size": 48, "hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 4},
                              num_experts=5, num_experts_per_tok=3), seed=23)
    oss = {**SIZES, "vocab_size": 48, "num_hidden_layers": 4, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6}
    yarn_oss = dict(factor=4.0, beta_fast=2.0, beta_slow=0.25, truncate=False, original_max_position_embeddings=16)
    make("gpt-oss", GptOssConfig(**{**oss, "hidden_size": 24, "intermediate_size": 16}, rope_parameters=rope("yarn", 100.0, **yarn_oss)), seed=30, count=60)
    make("gpt-oss-mxfp4", GptOssConfig(**{**oss, "intermediate_size": 32}, rope_parameters=rope("yarn", 100.0, **yarn_oss)), seed=31, mxfp4=True,
         old={"swiglu_limit": 7.0, "experts_per_token": 2, "initial_context_length": 16})
    # latent attention: queries made directly and from a vector of their own; routers with and without groups
    latent = {**SIZES, "vocab_size": 40, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 3, "num_key_value_heads": 3,
              "moe_intermediate_size": 8, "n_routed_experts": 6, "num_experts_per_tok": 2, "kv_lora_rank": 16, "qk_nope_head_dim": 6, "qk_rope_head_dim": 8,
              "v_head_dim": 10, "first_k_dense_replace": 1}
    yarn_all = dict(factor=4.0, beta_fast=2.0, beta_slow=0.25, original_max_position_embeddings=16, mscale=0.707, mscale_all_dim=0.707)
    make("deepseek-v2-lite", DeepseekV2Config(**latent, q_lora_rank=None, n_shared_experts=2, topk_method="greedy", rope_parameters=rope("yarn", 100.0, **yarn_all)),
         seed=32, count=60, old={"moe_layer_freq": 1, "scoring_func": "softmax", "head_dim": "remove"})
    make("deepseek-v2", DeepseekV2Config(**latent, q_lora_rank=12, n_shared_experts=1, topk_method="group_limited_greedy", n_group=3, topk_group=2,
                                         routed_scaling_factor=1.5), seed=33)
    make("deepseek-v3", DeepseekV3Config(**latent, q_lora_rank=12, n_shared_experts=1, n_group=2, topk_group=1, routed_scaling_factor=2.5,
                                         rope_parameters=rope("yarn", 100.0, **{**yarn_all, "mscale": 1.0, "mscale_all_dim": 0.5})), seed=34, count=60,
         text=100)
    make("deepseek-v3-plain", DeepseekV3Config(**latent, q_lora_rank=None, n_shared_experts=1, n_group=1, topk_group=1, norm_topk_prob=False,
                                               routed_scaling_factor=1.0, rope_interleave=False), seed=35)
    make("deepseek-v3-fp8", DeepseekV3Config(**latent, q_lora_rank=12, n_shared_experts=1, n_group=2, topk_group=1, routed_scaling_factor=2.5), seed=36, fp8=16)
    make("qwen3-moe-single", Qwen3MoeConfig(**{**sparse, "num_experts": 1, "num_experts_per_tok": 1}, head_dim=8, norm_topk_prob=True), seed=37, count=30)
    # rope scalings; small numbers so that positions reach beyond the original context
    deep = {**SIZES, "vocab_size": 40, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 4}
    yarn = dict(factor=4.0, original_max_position_embeddings=16)
    make("qwen2-yarn", Qwen2Config(**{**deep, "num_attention_heads": 2, "num_key_value_heads": 1}, rope_parameters=rope("yarn", 1000.0, **yarn)), seed=20, count=60,
         old={"rope_scaling": {"type": "yarn", **yarn}})
    make("qwen3-yarn", Qwen3Config(**deep, head_dim=16, rope_parameters=rope("yarn", 100.0, **yarn, beta_fast=2.0, beta_slow=0.25, truncate=False)), seed=21, count=60)
    make("llama-yarn", LlamaConfig(**deep, head_dim=12, rope_parameters=rope("yarn", 500.0, **yarn, mscale=1.0, mscale_all_dim=0.5)), seed=22, count=60)
    make("mistral-yarn", MistralConfig(**deep, head_dim=16, sliding_window=None, rope_parameters=rope("yarn", 100.0, **yarn, attention_factor=1.25)), seed=23, count=60, old={})
    dynamic = {**deep, "max_position_embeddings": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    make("llama-dynamic-rope", LlamaConfig(**dynamic, rope_parameters=rope("dynamic", factor=4.0)), seed=24,
         goldens={"golden.bin": 60, "golden-short.bin": 24}, old={"rope_scaling": {"type": "dynamic", "factor": 4.0}})
    # Phi-4-mini; keys as the hub has them
    long = dict(short_factor=[1.0, 1.2, 1.5], long_factor=[1.5, 2.0, 5.0])
    make("phi4-mini", Phi3Config(**{**deep, "hidden_size": 32, "tie_word_embeddings": True}, original_max_position_embeddings=32, sliding_window=4096,
                                 rope_parameters=rope("longrope", partial_rotary_factor=0.75, **long, original_max_position_embeddings=32)), seed=25,
         goldens={"golden.bin": 60, "golden-short.bin": 24},
         old={"partial_rotary_factor": 0.75, "rope_scaling": {"type": "longrope", **long}, "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False,
              "mlp_bias": False, "attention_bias": False, "auto_map": {}})
    granite = dict(embedding_multiplier=6.0, attention_multiplier=0.3, residual_multiplier=0.6, logits_scaling=2.5)
    make("granite", GraniteConfig(**{**deep, "tie_word_embeddings": True}, **granite), seed=26, old={})
    make("granite-biases", GraniteConfig(**deep, **{**granite, "residual_multiplier": 1.5}, attention_bias=True, mlp_bias=True), seed=27)
    make("granite4", GraniteMoeHybridConfig(**{**deep, "tie_word_embeddings": True}, **granite, num_local_experts=0, num_experts_per_tok=0, shared_intermediate_size=40,
                                            position_embedding_type="rope", layer_types=["full_attention"] * 4, mamba_n_heads=4), seed=28,
         old={"layer_types": ["attention"] * 4, "init_method": "mup", "normalization_function": "rmsnorm"})
    make("seed-oss", SeedOssConfig(**deep, head_dim=10, attention_bias=True, attention_out_bias=False, mlp_bias=False), seed=29, old={})
    make("seed-oss-biases", SeedOssConfig(**deep, head_dim=8, attention_bias=False, attention_out_bias=True, mlp_bias=True), seed=30)
    make("glm", GlmConfig(**deep, head_dim=16), seed=31, old={"partial_rotary_factor": 0.5})
    make("glm4", Glm4Config(**deep, head_dim=12, attention_bias=True), seed=32, old={"partial_rotary_factor": 0.5})
    make("glm4-yarn", Glm4Config(**deep, head_dim=16, attention_bias=False, rope_parameters=rope("yarn", 100.0, **yarn, partial_rotary_factor=0.5)), seed=33, count=60)
    make("ministral3", Ministral3Config(**deep, head_dim=16, rope_parameters=rope("yarn", 100.0, **yarn, beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0,
                                                                               llama_4_scaling_beta=0.1, max_position_embeddings=64)), seed=34, count=60)
    eyes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4, head_dim=8)
    inside = Ministral3Config(**deep, head_dim=16, rope_parameters=rope("yarn", 100.0, **yarn, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1))
    make("ministral3-vision", Mistral3Config(text_config=inside.to_dict(), vision_config=dict(eyes, model_type="pixtral"), image_token_index=39, tie_word_embeddings=False),
         seed=38, count=60)
    inside = MistralConfig(**deep, head_dim=10, sliding_window=None, rope_parameters=rope(theta=1000000.0))
    make("mistral3-vision", Mistral3Config(text_config=inside.to_dict(), vision_config=dict(eyes, model_type="pixtral"), image_token_index=39, tie_word_embeddings=False),
         seed=39)
    make("ministral", MinistralConfig(**deep, head_dim=10, sliding_window=7, layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"]),
         seed=35)
    make("ernie4_5", Ernie4_5Config(**{**deep, "tie_word_embeddings": True}, head_dim=8, use_bias=False), seed=36, old={})
    make("ernie4_5-biases", Ernie4_5Config(**deep, head_dim=10, use_bias=True), seed=37)
    small = {**SIZES, "vocab_size": 48, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 5}
    # layers without rotation, as the hub's config lists them; and with a window in those, nothing listed
    make("smollm3", SmolLM3Config(**{**small, "tie_word_embeddings": True}, rope_parameters=rope(theta=500.0)), seed=16, count=60,
         old={"tie_word_embeddings": "remove"})
    make("smollm3-window", SmolLM3Config(**{**small, "num_hidden_layers": 4}, no_rope_layer_interval=2, use_sliding_window=True, sliding_window=7,
                                         attention_bias=True, mlp_bias=True), seed=17, old={"layer_types": "remove", "no_rope_layers": "remove"})
    make("gemma", GemmaConfig(**{**small, "num_hidden_layers": 4, "head_dim": 16, "tie_word_embeddings": True}), seed=18, old={"hidden_act": "gelu", "tie_word_embeddings": "remove"})
    kinds = {"full_attention": rope("linear", 1000.0, factor=8.0), "sliding_attention": rope(theta=100.0)}
    make("gemma3", Gemma3TextConfig(**gemma, rope_parameters=kinds, sliding_window_pattern=3), seed=19, count=60,
         old={"layer_types": "remove", "tie_word_embeddings": "remove", "sliding_window_pattern": 3})
    make("gemma3-untied", Gemma3TextConfig(**{**gemma, "tie_word_embeddings": False}, rope_parameters=kinds, attention_bias=True,
                                           layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"]), seed=20)
    sight = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4)
    make("gemma3-vision", Gemma3Config(text_config=Gemma3TextConfig(**gemma, rope_parameters=kinds).to_dict(), vision_config=sight, mm_tokens_per_image=4,
                                       image_token_index=47, boi_token_index=45, eoi_token_index=46), seed=21)
    make("olmo2", Olmo2Config(**small), seed=22, old={})
    own_yarn = rope("yarn", 500000.0, factor=8.0, original_max_position_embeddings=16, attention_factor=1.2, beta_fast=32.0, beta_slow=1.0)
    make("olmo3", Olmo3Config(**small, sliding_window=7, rope_parameters={"full_attention": own_yarn, "sliding_attention": rope(theta=500000.0)}), seed=23, count=60,
         old={"layer_types": "remove"})
    make("olmo3-kinds", Olmo3Config(**small, sliding_window=7, rope_parameters={"full_attention": rope("linear", 500.0, factor=4.0),
                                                                               "sliding_attention": rope(theta=500.0)}), seed=24)
    llama3 = dict(factor=16.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
    make("exaone4", Exaone4Config(**small, sliding_window=7, rope_parameters=rope("llama3", 500.0, **llama3)), seed=25, count=60,
         old={"sliding_window_pattern": "LLLG"})
    make("exaone4-full", Exaone4Config(**{**small, "tie_word_embeddings": True}, sliding_window=None, layer_types=["full_attention"] * 5), seed=26, old={})
    if not sys.argv[1:]:
        greedy()


if __name__ == "__main__":
    main()
