"""A packed folder as hubs share it: in a hub's cache of links, in transformers, and its report."""
import json
import os
import shutil
import subprocess
import xml.etree.ElementTree

from common import CTX, TEXT, WINDOWS, need, note, options, package, packed_folder, perplexity, require, row, run


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
    ours, theirs = perplexity(o, packed), perplexity(o, found)
    require(ours == theirs, f"perplexity {theirs} from the cache, {ours} from the folder")
    row("huggingface_hub " + __version__, f"perplexity from snapshots/… of its cache; peer: from the folder ({WINDOWS} windows of {CTX})", f"{theirs:.4f}", f"{ours:.4f}")
    return found


def in_transformers(o, folder):
    """Perplexity and logits of AutoModelForCausalLM on the same windows."""
    gptvq = package(o)
    import numpy as np
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ours = gptvq.Model.open(folder, compute="fp32")
    ids = ours.tokenizer.encode(TEXT.read_text(), special=False)[: WINDOWS * CTX]
    nll, worst, scale = 0.0, 0.0, 0.0
    for at in range(0, len(ids), CTX):
        window = ids[at:at + CTX]
        with torch.no_grad():
            logits = model(torch.tensor([window])).logits[0]
        own = ours.logits(window, all_logits=True)
        worst, scale = max(worst, float(np.abs(logits.numpy() - own).max())), max(scale, float(np.abs(own).max()))
        nll += float(torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(window[1:]), reduction="sum"))
    theirs, mine = float(np.exp(nll / (len(ids) - WINDOWS))), perplexity(o, folder)
    packed = sum(m.indices.nbytes for m in model.modules() if type(m).__name__ == "GptvqLinear")
    require(packed > 0 and abs(theirs / mine - 1) < 1e-4, f"perplexity {theirs} in transformers, {mine} here")
    require(worst < 1e-3 * scale, f"logits differ by {worst} of {scale}")
    row("transformers " + transformers.__version__, f"perplexity of AutoModelForCausalLM; linears packed in memory; logits within {worst:.1e} of {scale:.0f}",
        f"{mine:.4f}", f"{theirs:.4f}")


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


if __name__ == "__main__":
    o = options()
    packed = packed_folder(o)
    folder = hub_cache(o, packed) if need("huggingface_hub") else packed
    if need("torch", "transformers", "numpy"):
        in_transformers(o, folder)
    report(o, packed)
