"""GGUF files of a model for llama.cpp: gptvq export makes the first, llama.cpp itself quantizes it. Called by bench/peers_model.py."""
import ctypes, sys

import gguf


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
