"""Packed folders in transformers, against gptvq.Model. Skipped where torch and transformers are not installed."""
import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gptvq

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")
SOURCE = Path(__file__).resolve().parents[2]
TINY = SOURCE / "tests/golden/model"
IDS = [1, 5, 17, 30, 12, 9, 34, 38, 7]
FORMATS = {
    "vq": dict(method="kmeans", index_bits=6, group_size=256, group_cols=32),
    "scales": dict(method="kmeans", index_bits=6, group_size=256, group_cols=32, scale_block=16, codebook_bits=16),
    "factored": dict(method="kmeans", dim=1, index_bits=3, group_size=256, group_cols=32, svd_rank=2),
    "uniform": dict(method="rtn", index_bits=4, group_size=16),
    "permuted": dict(method="gptq", index_bits=4, group_size=16, act_order="columns", calib="self", calib_samples=2, calib_length=16),
    "trellis": dict(code="trellis", bits=3.25, calib="self", calib_samples=2, calib_length=16),
    "head": dict(method="rtn", index_bits=4, group_size=16, head_bits=8),
    "outside": dict(method="gptq", index_bits=4, group_size=16, head_bits=5, embedding_bits=3, calib="self", calib_samples=2, calib_length=16),
}
OUTSIDE = {"head": 1, "outside": 2}  # packed matrices that are no block's


def pack(tmp_path, model, **options):
    out = tmp_path / "packed"
    gptvq.quantize(TINY / model, out, force=True, **options)
    return out


def load(folder, **options):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options)


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def check(folder):
    """Logits are ours, up to what fp32 sums in another order do: a few times what they do between transformers' fp32 and its fp64 with the same weights."""
    model = load(folder, dtype=torch.float32)
    ours = gptvq.Model.open(folder, compute="fp32").logits(IDS, all_logits=True)
    got = logits(model)
    with torch.no_grad():
        exact = copy.deepcopy(model).dequantize().double()(torch.tensor([IDS])).logits[0].numpy()
    noise = np.abs(logits(copy.deepcopy(model).dequantize()) - exact).max()
    bound = 8 * noise + 8 * np.finfo(np.float32).eps * np.abs(exact).max()
    assert np.abs(got - ours).max() <= bound and np.abs(got - exact).max() <= bound and bound < 1e-3 * np.abs(exact).max()
    return model


@pytest.mark.parametrize("name", FORMATS)
def test_formats(tmp_path, name):
    folder = pack(tmp_path, "llama", **FORMATS[name])
    model = check(folder)
    packed = [m for m in model.modules() if isinstance(m, gptvq._torch.GptvqLinear)]
    assert len(packed) == len(gptvq.Model.open(folder).layers) + OUTSIDE.get(name, 0)
    stored = sum(getattr(m, part).nbytes for m in packed if m.name not in ("lm_head", "model.embed_tokens") for part in m.parts)
    assert stored == gptvq.Model.open(folder).info.linear_bytes  # nothing is unpacked in memory
    again = tmp_path / "again"
    model.save_pretrained(again)
    np.testing.assert_array_equal(logits(load(again, dtype=torch.float32)), logits(model))
    np.testing.assert_array_equal(gptvq.Model.open(again, compute="fp32").logits(IDS), gptvq.Model.open(folder, compute="fp32").logits(IDS))
    decoded = [m.decode() for m in packed]
    for dtype in (torch.float16, torch.bfloat16):  # packed arrays are as the files have them, whatever all else is
        half = [m for m in load(folder, dtype=dtype).modules() if isinstance(m, gptvq._torch.GptvqLinear)]
        assert all(torch.equal(m.decode(), y) for m, y in zip(half, decoded)) and len(half) == len(packed)
    plain, expected = tmp_path / "plain", logits(copy.deepcopy(model).dequantize())
    model.dequantize().save_pretrained(plain)  # after save_pretrained
    np.testing.assert_array_equal(logits(load(plain, dtype=torch.float32)), expected)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "phi3", "gemma2", "llama-tied", "mistral", "olmo2", "granite", "smollm3", "glm4"])
def test_families(tmp_path, family):
    check(pack(tmp_path, family, method="rtn", index_bits=6, group_size=16))


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3", "llama-tied", "qwen2", "granite"])
def test_packed_embeddings(tmp_path, family):
    """Tied ones stay one matrix, in memory and in what is saved; families that scale the rows do so still."""
    folder = pack(tmp_path, family, method="rtn", index_bits=6, group_size=16, embedding_bits=6)
    model = check(folder)
    assert isinstance(model.get_input_embeddings(), gptvq._torch.GptvqEmbedding)
    assert load(folder, dtype=torch.bfloat16)(torch.tensor([IDS])).logits.dtype == torch.bfloat16
    with pytest.raises(AttributeError, match="model.embed_tokens is packed and has no weight: model.dequantize"):
        model.resize_token_embeddings(8)
    again, plain = tmp_path / "again", tmp_path / "plain"
    model.save_pretrained(again)
    np.testing.assert_array_equal(logits(load(again, dtype=torch.float32)), logits(model))
    np.testing.assert_array_equal(gptvq.Model.open(again, compute="fp32").logits(IDS), gptvq.Model.open(folder, compute="fp32").logits(IDS))
    expected = logits(copy.deepcopy(model).dequantize())
    model.dequantize().save_pretrained(plain)
    np.testing.assert_array_equal(logits(load(plain, dtype=torch.float32)), expected)


def test_experts_are_refused(tmp_path):
    with pytest.raises(gptvq.UnsupportedError, match="export --format hf"):
        load(pack(tmp_path, "mixtral", method="rtn", index_bits=4, group_size=16))


def test_types_and_gradients(tmp_path):
    folder = pack(tmp_path, "llama", **FORMATS["vq"])
    model = load(folder)
    assert model.dtype == gptvq_dtype(folder)
    half = load(folder, dtype=torch.bfloat16)
    linear = half.model.layers[0].self_attn.q_proj
    x = torch.randn(2, 3, linear.in_features)
    assert half(torch.tensor([IDS])).logits.dtype == torch.bfloat16 and linear(x.bfloat16()).dtype == torch.bfloat16
    assert linear.float().codebook_scales.dtype == torch.bfloat16  # packed arrays are no numbers to convert
    assert linear(x[:0]).shape == (0, 3, linear.out_features)
    x.requires_grad_(True)
    linear(x).square().sum().backward()
    y = linear.decode()
    assert torch.allclose(x.grad, 2 * (x.detach() @ y.T) @ y, rtol=1e-4, atol=1e-4)
    gptvq.transformers.set_compute(half, "int8")
    assert linear.compute == "int8" and torch.isfinite(linear(x)).all()
    with pytest.raises(gptvq.ArgumentError):
        gptvq.transformers.set_compute(half, "int9")
    with pytest.raises(gptvq.UnsupportedError, match="dequantize"):
        linear(x.to("meta"))
    linear.indices = linear.indices.clone()  # arrays that are replaced are seen
    linear.indices.zero_()
    assert not torch.equal(linear.decode(), y)
    plain = load(folder, dtype=torch.float32).dequantize()
    assert not any(isinstance(m, gptvq._torch.GptvqLinear) for m in plain.modules())


def gptvq_dtype(folder):
    import json

    config = json.loads((folder / "config.json").read_text())
    return getattr(torch, config.get("dtype") or config.get("torch_dtype") or "float32")


def test_import_order(tmp_path):
    """import gptvq does not import transformers; whichever is first, packed folders open."""
    folder = pack(tmp_path, "llama", **FORMATS["uniform"])
    use = f"AutoModelForCausalLM.from_pretrained({str(folder)!r})"
    for first in ("import importlib.util, transformers, gptvq; importlib.util.find_spec('transformers.quantizers.auto')\nfrom transformers import AutoModelForCausalLM",
                  "import sys, gptvq; assert 'torch' not in sys.modules and 'transformers' not in sys.modules\nfrom transformers import AutoModelForCausalLM",
                  "from transformers import AutoModelForCausalLM; import gptvq", "from transformers import AutoModelForCausalLM; import transformers.quantizers.auto, gptvq"):
        subprocess.run([sys.executable, "-c", f"{first}\nassert type({use}.model.layers[0].mlp.up_proj).__name__ == 'GptvqLinear'"], check=True)


def test_damaged_folders(tmp_path):
    folder = pack(tmp_path, "llama", **FORMATS["uniform"])
    shard = sorted(folder.glob("*.safetensors"))[0]
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b'\\"index_bits\\":4', b'\\"index_bits\\":3'))
    assert shard.read_bytes() != data
    model = load(folder)
    with pytest.raises(gptvq.FormatError, match="model.layers.0"):
        model(torch.tensor([IDS]))
    for old, new, message in ((b'\\"rows\\":', b'\\"r_ws\\":', "damaged"), (b'\\"cols\\":32', b'\\"cols\\":33', "33"), (b'"dtype":"F16"', b'"dtype":"I16"', "I16")):
        shard.write_bytes(data.replace(old, new))
        assert shard.read_bytes() != data
        with pytest.raises(gptvq.FormatError, match=message):
            load(folder)
