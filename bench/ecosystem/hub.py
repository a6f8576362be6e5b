"""A packed folder as hubs share it: in a hub's cache of links, in transformers, in llama.cpp by way of GGUF, and its report."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree

from common import ROOT, note, options, require, row

TEXT = ROOT / "examples/text/eval.txt"
WINDOWS, CTX = 4, 256


def run(o, *arguments):
    return subprocess.run([o.gptvq, *map(str, arguments), "--threads", str(o.threads)], check=True, capture_output=True, text=True).stdout


def perplexity(o, model, text):
    return json.loads(run(o, "eval", model, "--text", text, "--ctx", CTX, "--max-windows", WINDOWS, "--compute", "fp32", "--json", "--quiet"))


def packed_folder(o):
    """The model itself where it is packed, else packed without data, which is quick."""
    config = json.loads((pathlib.Path(o.model) / "config.json").read_text())
    if config.get("quantization_config", {}).get("quant_method") == "gptvq":
        return pathlib.Path(o.model)
    out = o.scratch / "packed"
    run(o, "quantize", o.model, "-o", out, "--method", "rtn", "--bits", "4.25", "--quiet")
    return out


def hub_cache(o, packed):
    """Through huggingface_hub's own cache, offline: what snapshot_download finds is what opens."""
    from huggingface_hub import __version__, snapshot_download

    cache = o.scratch / "hub"
    home = cache / "models--acme--packed"
    for folder in ("blobs", "refs", "snapshots/0123456789abcdef0123456789abcdef01234567"):
        (home / folder).mkdir(parents=True)
    (home / "refs/main").write_text("0123456789abcdef0123456789abcdef01234567")
    for number, file in enumerate(sorted(packed.iterdir())):
        shutil.copy(file, home / f"blobs/{number:040x}")
        os.symlink(f"../../blobs/{number:040x}", home / "snapshots/0123456789abcdef0123456789abcdef01234567" / file.name)
    found = snapshot_download("acme/packed", cache_dir=cache, local_files_only=True)
    ours, theirs = perplexity(o, packed, TEXT)["perplexity"], perplexity(o, found, TEXT)["perplexity"]
    require(ours == theirs, f"perplexity {theirs} from the cache, {ours} from the folder")
    row("huggingface_hub " + __version__, f"perplexity from snapshots/… of its cache; peer: from the folder ({WINDOWS} windows of {CTX})", f"{theirs:.4f}", f"{ours:.4f}")
    return found


def in_transformers(o, folder):
    """Perplexity and logits of AutoModelForCausalLM on the same windows, by the package of this tree or an installed one."""
    code = f"""
import json, sys
sys.path.insert(0, {str(ROOT / "bindings/python")!r})
import gptvq, numpy as np, torch, transformers
from transformers import AutoModelForCausalLM
folder = {str(folder)!r}
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
ours = gptvq.Model.open(folder, compute="fp32")
ids = ours.tokenizer.encode(open({str(TEXT)!r}).read(), special=False)[: {WINDOWS * CTX}]
nll, worst, scale = 0.0, 0.0, 0.0
for at in range(0, len(ids), {CTX}):
    window = ids[at : at + {CTX}]
    with torch.no_grad():
        logits = model(torch.tensor([window])).logits[0]
    own = ours.logits(window, all_logits=True)
    worst, scale = max(worst, float(np.abs(logits.numpy() - own).max())), max(scale, float(np.abs(own).max()))
    nll += float(torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(window[1:]), reduction="sum"))
packed = sum(m.indices.nbytes for m in model.modules() if type(m).__name__ == "GptvqLinear")
print(json.dumps(dict(perplexity=float(np.exp(nll / (len(ids) - {WINDOWS}))), worst=worst, scale=scale, packed=packed, version=transformers.__version__)))
"""
    library = pathlib.Path(o.gptvq).resolve().parent / "libgptvq.so"
    environment = {"GPTVQ_LIBRARY": str(library), **os.environ} if library.exists() else os.environ
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    require(done.returncode == 0, f"transformers: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    ours = perplexity(o, folder, TEXT)["perplexity"]
    require(found["packed"] > 0 and abs(found["perplexity"] / ours - 1) < 1e-4, f"perplexity {found['perplexity']} in transformers, {ours} here")
    require(found["worst"] < 1e-3 * found["scale"], f"logits differ by {found['worst']} of {found['scale']}")
    row("transformers " + found["version"], f"perplexity; linears packed in memory; logits within {found['worst']:.1e} of {found['scale']:.0f}", f"{ours:.4f}", f"{found['perplexity']:.4f}")


def in_llama_cpp(o, packed):
    """The exported GGUF file: perplexity of llama.cpp on our windows."""
    import llama_cpp
    import numpy as np

    file = o.scratch / "packed.gguf"
    run(o, "export", packed, "-o", file, "--format", "gguf", "--type", "f16", "--quiet", "--force")
    text = run(o, "tokenize", packed, "--text", TEXT, "--no-bos", "--json", "--quiet")
    ids = json.loads(text)
    ids = (ids["ids"] if isinstance(ids, dict) else ids)[: WINDOWS * CTX]
    model = llama_cpp.Llama(str(file), n_ctx=CTX, n_batch=CTX, logits_all=True, verbose=False, n_threads=o.threads or None)
    nll = 0.0
    for at in range(0, len(ids), CTX):
        window = ids[at:at + CTX]
        model.reset()
        model.eval(window)
        logits = np.asarray(model.scores[:len(window)], np.float64)
        top = logits.max(1, keepdims=True)
        logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
        nll -= logs[np.arange(len(window) - 1), window[1:]].sum()
    theirs, ours = float(np.exp(nll / (len(ids) - WINDOWS))), perplexity(o, packed, TEXT)["perplexity"]
    require(abs(theirs / ours - 1) < 0.005, f"perplexity {theirs} in llama.cpp, {ours} here")
    row("llama.cpp (llama-cpp-python " + llama_cpp.__version__ + ")", "perplexity of export --format gguf --type f16; within 0.5 %", f"{ours:.4f}", f"{theirs:.4f}")


def report(o, packed):
    """The page: parsed strictly, and drawn by Chromium without a network."""
    copy = o.scratch / "reported"
    shutil.copytree(packed, copy)
    run(o, "eval", copy, "--text", TEXT, "--ctx", CTX, "--max-windows", WINDOWS, "--record", "--quiet")
    page, picture = o.scratch / "report.html", o.scratch / "report.png"
    run(o, "report", copy, "-o", page, "--quiet")
    root = xml.etree.ElementTree.fromstring(page.read_text().removeprefix("<!DOCTYPE html>"))
    charts, layers = len(root.findall(".//svg")), len(root.findall(".//table[@id='layers']/tr")) - 1
    wanted = len(json.loads(run(o, "inspect", packed, "--json", "--quiet"))["layers"])
    require(layers == wanted and charts >= 3, f"{layers} layers of {wanted}, {charts} charts in the report")
    program = shutil.which("chromium")
    if program is None:
        return note("ecosystem: no chromium: the report is not drawn")
    subprocess.run([program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={o.scratch}/chromium",
                    "--window-size=980,2400", f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)
    require(picture.stat().st_size > 20000, "an empty picture of the report")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    row("chromium " + version, "gptvq report: well-formed; drawn without a network", f"{charts} charts; {layers} layers")


def need(*modules):
    import importlib.util

    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        note(f"ecosystem: no {', '.join(missing)}: left out")
    return not missing


if __name__ == "__main__":
    o = options()
    packed = packed_folder(o)
    folder = hub_cache(o, packed) if need("huggingface_hub") else packed
    if need("torch", "transformers", "numpy"):
        in_transformers(o, folder)
    if need("llama_cpp", "numpy"):
        in_llama_cpp(o, packed)
    report(o, packed)
