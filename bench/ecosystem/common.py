"""What the parts of bench/ecosystem.sh share: options, servers, rows of the table."""
import argparse
import contextlib
import csv
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = ROOT / "examples/text/eval.txt"
WINDOWS, CTX = 4, 256  # of what is compared


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gptvq", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--scratch", required=True, type=pathlib.Path)
    parser.add_argument("--task", type=pathlib.Path, default=ROOT / "tests/golden/eval/task.jsonl")
    parser.add_argument("--peer", default="")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--parts")
    return parser.parse_args()


def row(client, what, ours, peer=""):
    require(not any("," in str(cell) for cell in (client, what, ours, peer)), f"a comma in the row of {what}")  # awk reads the table
    csv.writer(sys.stdout, lineterminator="\n").writerow([client, what, ours, peer])
    sys.stdout.flush()


def note(text):
    print(text, file=sys.stderr, flush=True)


def require(condition, what):
    """A failed expectation ends the run."""
    if not condition:
        note(f"ecosystem: FAILED: {what}")
        sys.exit(1)


def need(*modules):
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        note(f"ecosystem: no {', '.join(missing)}: left out")
    return not missing


def run(o, *arguments):
    """What a command of gptvq prints; its failure ends the run."""
    done = subprocess.run([o.gptvq, *map(str, arguments), "--threads", str(o.threads)], capture_output=True, text=True)
    require(done.returncode == 0, f"gptvq {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


def perplexity(o, model, compute="fp32"):
    return json.loads(run(o, "eval", model, "--text", TEXT, "--ctx", CTX, "--max-windows", WINDOWS, "--compute", compute, "--json", "--quiet"))["perplexity"]


def is_packed(model):
    config = pathlib.Path(model) / "config.json"
    return json.loads(config.read_text()).get("quantization_config", {}).get("quant_method") == "gptvq"


def packed_folder(o):
    """The model itself where it is packed, else packed without data, which is quick."""
    if is_packed(o.model):
        return pathlib.Path(o.model)
    out = o.scratch / "packed"
    if not out.exists():
        run(o, "quantize", o.model, "-o", out, "--method", "rtn", "--bits", "4.25", "--quiet")
    return out


def package(o):
    """The Python package of this tree, with the library that is beside the program."""
    library = pathlib.Path(o.gptvq).resolve().parent / "libgptvq.so"
    if library.exists():
        os.environ.setdefault("GPTVQ_LIBRARY", str(library))
    sys.path.insert(0, str(ROOT / "bindings/python"))
    import gptvq
    gptvq.set_threads(o.threads)
    return gptvq


@contextlib.contextmanager
def serving(o, *more):
    """Our server, on a free port; its base address."""
    log = open(o.scratch / "serve.log", "ab")
    command = [o.gptvq, "serve", o.model, "--port", "0", "--threads", str(o.threads), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    url = process.stdout.readline().strip()
    require(url.startswith("http://"), f"no server: {(o.scratch / 'serve.log').read_text()}")
    try:
        yield url
    finally:
        process.terminate()
        require(process.wait(60) == 0, "the server did not end in order")


@contextlib.contextmanager
def serving_peer(o, gguf, port=18777):
    """llama.cpp's server of llama-cpp-python."""
    command = [sys.executable, "-m", "llama_cpp.server", "--model", gguf, "--port", str(port), "--n_ctx", "4096"]
    if o.threads > 0:
        command += ["--n_threads", str(o.threads), "--n_threads_batch", str(o.threads)]
    with open(o.scratch / "peer.log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url + "/v1/models", timeout=5).read()
                break
            require(process.poll() is None, f"llama.cpp's server ends: {(o.scratch / 'peer.log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(60)
