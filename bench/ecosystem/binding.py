"""The Python package: what the command says of the model, and one matrix beside numpy's own arithmetic."""
import json

from common import CTX, TEXT, WINDOWS, is_packed, need, options, package, perplexity, require, row, run


def main():
    o = options()
    if not need("numpy"):
        return
    gptvq = package(o)
    import numpy as np

    version = f"gptvq for Python {gptvq.__version__} (numpy {np.__version__})"
    model = gptvq.Model.open(o.model, compute="fp32")
    found, told = model.perplexity(TEXT.read_text(), ctx=CTX, max_windows=WINDOWS).perplexity, perplexity(o, o.model)
    require(abs(found / told - 1) < 1e-8, f"perplexity {found} from Python, {told} by gptvq eval")
    row(version, "Model.perplexity; peer: gptvq eval", f"{found:.4f}", f"{told:.4f}")
    written = "".join(model.generate("Once upon a time", max_tokens=32, temperature=0))
    said = json.loads(run(o, "generate", o.model, "-p", "Once upon a time", "-n", "32", "--temp", "0", "--compute", "fp32", "--no-echo", "--json", "--quiet"))["text"]
    require(written == said, f"Python writes {written!r}, gptvq generate {said!r}")
    row(version, "Model.generate: greedy bytes; peer: of gptvq generate", len(written.encode()), len(said.encode()))

    first = model.layers[0]
    weights = model.multiply(0, np.eye(first.cols, dtype=np.float32), compute="fp32").T.copy()
    inputs = np.random.default_rng(1).standard_normal((4 * first.cols, first.cols)).astype(np.float32)
    inputs *= np.linspace(0.1, 2, first.cols, dtype=np.float32)
    packed = gptvq.layer.solve(weights, gptvq.layer.hessian(inputs), bits=2.25, dim=2)
    wide, left = inputs.astype(np.float64), weights.astype(np.float64) - packed.decode()
    error = ((wide @ left.T) ** 2).sum() / ((wide @ weights.T.astype(np.float64)) ** 2).sum()
    require(abs(packed.error / error - 1) < 1e-3, f"layer.solve says error {packed.error}, numpy {error}")
    row(version, f"layer.solve of {first.name} [{first.rows}×{first.cols}]: error; peer: by numpy", f"{packed.error:.6f}", f"{error:.6f}")
    try:
        gptvq.quantize(o.model, o.scratch / "again", bits=-1)
        require(False, "a wrong option is taken")
    except gptvq.ArgumentError:
        pass
    if is_packed(o.model):
        return
    seen = []
    gptvq.quantize(o.model, o.scratch / "by-python", method="rtn", bits=4.25, progress=seen.append)
    require(len(seen) >= len(model.layers) and seen[-1].done == seen[-1].total, f"progress {seen[-1:]}")
    run(o, "quantize", o.model, "-o", o.scratch / "by-command", "--method", "rtn", "--bits", "4.25", "--quiet")
    files = [sorted((o.scratch / name).glob("*.safetensors")) for name in ("by-python", "by-command")]
    require([f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]], "Python packs other bytes than gptvq quantize")
    row(version, "quantize: bytes of tensors; peer: the same by gptvq quantize", sum(f.stat().st_size for f in files[0]), sum(f.stat().st_size for f in files[1]))


if __name__ == "__main__":
    main()
