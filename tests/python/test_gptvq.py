"""The Python package against the example model, and against the command line tool (GPTVQ: its path)."""
import copy
import gc
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import gptvq
from gptvq import layer

SOURCE = Path(__file__).resolve().parents[2]
MODEL = SOURCE / "examples/stories-4m"
TEXT = (SOURCE / "examples/text/eval.txt").read_text()
PROGRAM = os.environ.get("GPTVQ", str(SOURCE / "build/release/gptvq"))


def tool(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def model():
    return gptvq.Model.open(MODEL, compute="fp32")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "small"
    gptvq.quantize(MODEL, out, method="rtn", bits=4.25)
    return out


def test_tokenizer(model):
    t = gptvq.Tokenizer(MODEL)
    ids = t.encode("Once upon a time")
    assert t.decode(ids) == "Once upon a time"
    assert " ".join(map(str, ids)) == tool("tokenize", MODEL, "--text", SOURCE / "tests/python/once.txt").strip()
    assert t.decode(np.array(ids)) == t.decode(iter(ids))
    assert t.id(t.decode([t.eos], skip_special=False)) == t.eos and t.id("no such token at all") is None and len(t) == model.info.vocab
    assert t.decode([]) == "" and t.encode("") == t.encode(b"")
    for wrong in ([[1]], [1.5], ["a"], np.zeros((2, 2), int)):
        with pytest.raises(TypeError):
            t.decode(wrong)
    with pytest.raises(ValueError):
        t.decode([2**40])


def test_model(model):
    assert model.info.family == "Llama" and not model.info.packed and model.quantization is None
    assert len(model.layers) == 7 * model.info.layers and model.layers[0].rows == model.info.heads * model.info.head_dim
    ids = model.tokenizer.encode("Once upon a time there was")
    every = model.logits(ids, all_logits=True)
    assert every.shape == (len(ids), model.info.vocab) and every.dtype == np.float32
    session = model.session(len(ids))
    session.forward(ids[:3])
    np.testing.assert_allclose(session.forward(ids[3:]), every[-1], atol=1e-3)
    np.testing.assert_array_equal(model.logits("Once upon a time there was"), model.logits(ids))


def test_generate(model, packed):
    for path in (MODEL, packed):
        wanted = tool("generate", path, "-p", "Once upon a time", "-n", 24, "--temp", 0, "--compute", "fp32", "--quiet").rstrip("\n")
        assert "Once upon a time" + "".join(gptvq.Model(path, compute="fp32").generate("Once upon a time", max_tokens=24, temperature=0)) == wanted
    one, two = (list(model.generate("The", max_tokens=16, seed=3)) for _ in range(2))
    assert one == two and one != list(model.generate("The", max_tokens=16, seed=4))
    assert list(model.generate("The", max_tokens=0)) == []
    with pytest.raises(gptvq.ArgumentError):
        list(model.generate("The", temperature=-1))
    with pytest.raises(gptvq.ArgumentError):
        model.generate(list(range(10)) * 1000)


def test_perplexity(model):
    got = model.perplexity(TEXT, ctx=256, max_windows=3)
    assert got.windows == 3 and got.tokens == 3 * 255
    assert math.isclose(math.exp(got.nll), got.perplexity, rel_tol=1e-12)
    seen = []
    with pytest.raises(gptvq.Cancelled) as failure:
        model.perplexity(TEXT, ctx=256, progress=lambda p: seen.append(p) or len(seen) < 2)
    assert failure.value.status == 130 and len(seen) == 2 and seen[0].phase == "evaluate"
    with pytest.raises(gptvq.DataError):
        model.perplexity("too short", ctx=256)


def test_quantize(model, packed, tmp_path):
    small = gptvq.Model(packed)
    assert small.info.packed and small.quantization["quant_method"] == "gptvq" and {l.format for l in small.layers} == {"uniform"}
    tool("quantize", MODEL, "-o", tmp_path / "tool", "--method", "rtn", "--bits", "4.25", "--quiet")
    for shard in packed.glob("*.safetensors"):
        assert shard.read_bytes() == (tmp_path / "tool" / shard.name).read_bytes()
    steps = []
    report = gptvq.quantize(MODEL, tmp_path / "vq", method="kmeans", bits=2.25, dim=2, em_iterations=2, progress=steps.append)
    assert report.layers == len(model.layers) and 2.2 < report.bits_per_value <= 2.25 and steps[-1].done == steps[-1].total
    with pytest.raises(gptvq.IOFailure, match="exists") as failure:
        gptvq.quantize(MODEL, tmp_path / "vq", method="rtn")
    assert failure.value.status == 3
    with pytest.raises(ZeroDivisionError):  # what the callback raises stops the run
        gptvq.quantize(MODEL, tmp_path / "stopped", method="rtn", progress=lambda p: 1 / 0)
    assert not (tmp_path / "stopped").exists()
    for wrong in ({"bits": "many"}, {"no_such": 1}, {"method": "magic"}, {"bits": -1}, {"bits": object()}, {"recipe": "none"}):
        with pytest.raises(gptvq.ArgumentError):
            gptvq.quantize(MODEL, tmp_path / "wrong", **wrong)
    assert gptvq.options()["method"].choices == ["gptvq", "gptq", "rtn", "kmeans"]


def test_multiply(packed):
    small = gptvq.Model(packed)
    x = np.random.default_rng(1).normal(size=(5, small.layers[0].cols)).astype("f4")
    y = small.multiply(0, x, "fp32")
    assert y.shape == (5, small.layers[0].rows)
    with pytest.raises(gptvq.ArgumentError):
        small.multiply(0, x[:, 1:])
    with pytest.raises(gptvq.ArgumentError):
        small.multiply(1000, x)


def test_layer():
    random = np.random.default_rng(1)
    w = random.normal(size=(64, 128)).astype("f4")
    x = random.normal(size=(512, 128)).cumsum(1).astype("f4")
    h = layer.hessian(x)
    np.testing.assert_allclose(h, x.astype("f8").T @ x.astype("f8") / len(x), rtol=1e-5, atol=1e-3)
    blind, seeing = layer.solve(w, bits=3.25, dim=2), layer.solve(w, h, bits=3.25, dim=2)
    for got, metric in ((blind, np.eye(128)), (seeing, h)):
        e = w.astype("f8") - got.decode()
        error = np.trace(e @ metric @ e.T) / np.trace(w.astype("f8") @ metric @ w.T.astype("f8"))
        assert math.isclose(got.error, error, rel_tol=1e-3)
        np.testing.assert_allclose(got.multiply(x), x @ got.decode().T, rtol=1e-3, atol=1e-2)
        assert sum(a.nbytes for n, a in got.arrays.items() if n != "permutation") <= got.info.bytes
        assert got.arrays["codebooks"].ndim == 4 and not got.arrays["indices"].flags.writeable
    indices = seeing.arrays["indices"]
    copy = indices.copy()
    del blind, seeing, got
    gc.collect()
    np.testing.assert_array_equal(indices, copy)  # a view keeps its memory
    for wrong in (w[0], w[:0], np.full_like(w, np.nan)):
        with pytest.raises(gptvq.Error):
            layer.solve(wrong, bits=3.25)
    with pytest.raises(gptvq.ArgumentError):
        layer.solve(w, h[:5, :5])


def test_errors(tmp_path):
    with pytest.raises(gptvq.IOFailure, match="nowhere") as failure:
        gptvq.Model(tmp_path / "nowhere")
    assert failure.value.status == 3 and isinstance(failure.value, OSError)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(gptvq.FormatError):
        gptvq.Model(tmp_path)
    with pytest.raises(gptvq.ArgumentError):
        gptvq.Model(MODEL, compute="fp64")
    with pytest.raises(TypeError):
        gptvq.Model(5)


def test_misuse(model, tmp_path):
    """What C would take for something else is an exception; copies share what the library made."""
    for one in (model, model.session(4), gptvq.Tokenizer(MODEL), layer.solve(np.ones((16, 32)), bits=3.25)):
        other = copy.copy(one)
        del one
        gc.collect()
        if isinstance(other, gptvq.Session):
            assert other.forward([1]).shape == (model.info.vocab,)
        elif isinstance(other, layer.PackedLayer):
            assert other.decode().shape == (16, 32)
        else:
            (other if isinstance(other, gptvq.Tokenizer) else other.tokenizer).encode("a")
        del other
        gc.collect()
    assert model.logits("a").shape == (model.info.vocab,)
    calls = [lambda: gptvq.Model(f"{MODEL}\0x"), lambda: model.tokenizer.id("a\0b"), lambda: gptvq.quantize(MODEL, "x\0y", method="rtn"),
             lambda: layer.solve(np.ones((16, 32)), calib="x\0y"), lambda: layer.solve(np.ones((16, 32)), name="x\0y"), lambda: model.session(-1),
             lambda: model.session(2**64 + 5), lambda: model.session(1.5), lambda: model.generate("a", max_tokens=-1), lambda: model.generate("a", top_k=-1),
             lambda: model.perplexity(TEXT, ctx=2**64 + 16), lambda: model.perplexity(TEXT, max_windows=-1), lambda: model.multiply(-1, np.ones((1, 64))),
             lambda: layer.solve(np.ones((16, 32)), bits=float("nan")), lambda: layer.solve(np.ones((16, 32)), bits=float("inf")),
             lambda: layer.solve(np.ones((16, 32)), bits=10**400), lambda: layer.solve(np.ones((16, 32)), bits=np.array([1, 2])),
             lambda: gptvq.Model(MODEL, compute=5)]
    for number, call in enumerate(calls):
        with pytest.raises(gptvq.ArgumentError):
            call()
            pytest.fail(f"call {number} is taken")
    for wrong in (5, None):
        with pytest.raises(TypeError):
            model.tokenizer.encode(wrong)
    assert layer.solve(np.ones((16, 32)), bits=np.float32(3.25), seed=np.uint64(2**63 + 1)).info.rows == 16
    failed = subprocess.run([sys.executable, "-c", "import os, sys, gptvq\nm = gptvq.Model(sys.argv[1])\nm.logits('a b c')\npid = os.fork()\n"
                             "m.logits('a b c')\nif pid:\n    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))", str(MODEL)], timeout=60)
    assert failed.returncode == 0  # a process that was forked computes as well


def test_threads_run_meanwhile(model):
    """The GIL is free while the library works: another thread counts on."""
    stop, counted = threading.Event(), [0]

    def count():
        while not stop.is_set():
            counted[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    before = counted[0]
    session = model.session(512)
    session.forward([1] * 512)  # one call
    during = counted[0] - before
    stop.set()
    thread.join()
    assert during > 10
