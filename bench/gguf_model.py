"""A Hugging Face folder as GGUF files for llama.cpp: converted here (bf16, f16), quantized by llama.cpp itself. Called by bench/peers_model.py.

Architectures: Llama and Mistral without rope scaling. The files have no tokenizer: bench/peers_model.py gives token ids to both sides."""
import ctypes, json, os, sys

import gguf
import numpy

NAMES = {  # of a block: Hugging Face's and GGUF's
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def config_of(folder):
    with open(f"{folder}/config.json") as file:
        config = json.load(file)
    if config["architectures"][0] not in ("LlamaForCausalLM", "MistralForCausalLM") or config.get("rope_scaling"):
        sys.exit(f"{folder}: only Llama and Mistral models without rope scaling are converted to GGUF here")
    rope = config.get("rope_parameters") or {}
    config["rope_theta"] = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    config["head_dim"] = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return config


def tensors_of(folder):
    """(name, fp32 array) of every tensor, one at a time."""
    files = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    for name in files:
        path = f"{folder}/{name}"
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        data = numpy.memmap(path, mode="r", offset=8 + size)
        for tensor, entry in header.items():
            if tensor == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            raw = data[begin:end]
            if entry["dtype"] == "BF16":
                values = (raw.view("<u2").astype(numpy.uint32) << 16).view(numpy.float32)
            else:
                values = raw.view({"F16": "<f2", "F32": "<f4"}[entry["dtype"]]).astype(numpy.float32)
            yield tensor, values.reshape(entry["shape"])


def gguf_name(tensor):
    stem = tensor.removesuffix(".weight")
    if stem in OUTSIDE:
        return OUTSIDE[stem] + ".weight"
    _, _, block, rest = stem.split(".", 3)
    return f"blk.{block}.{NAMES[rest]}.weight"


def interleave(weights, heads):
    """llama.cpp rotates neighbouring values of a head, Hugging Face its two halves."""
    return weights.reshape(heads, 2, -1, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def convert(folder, path, kind):
    """The whole model as `kind`, BF16 or F16; vectors as F32."""
    config = config_of(folder)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    writer.add_tokenizer_model("no_vocab")
    for tensor, values in tensors_of(folder):
        if tensor == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        if "q_proj" in tensor:
            values = interleave(values, config["num_attention_heads"])
        if "k_proj" in tensor:
            values = interleave(values, config["num_key_value_heads"])
        if values.ndim == 1:
            writer.add_tensor(gguf_name(tensor), values)
        else:
            quantized = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
            writer.add_tensor(gguf_name(tensor), quantized, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source, path, kind, threads):
    """llama.cpp's own mix for that type; where a matrix does not have a multiple of 256 columns it takes another type. Embedding and head: Q8_0."""
    import llama_cpp
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.token_embedding_type = params.output_tensor_type = int(gguf.GGMLQuantizationType.Q8_0)
    if llama_cpp.llama_model_quantize(source.encode(), path.encode(), ctypes.byref(params)) != 0:
        sys.exit(f"{path}: llama.cpp cannot quantize {source} to {kind}")


def measure(path):
    """Bits per value of the blocks' matrices, and {type: share of their values}."""
    values, bits, types = 0, 0, {}
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1:
            values += tensor.n_elements
            bits += 8 * tensor.n_bytes
            types[tensor.tensor_type.name] = types.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    return bits / values, {name: count / values for name, count in sorted(types.items())}
