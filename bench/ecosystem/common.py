"""What the parts of bench/ecosystem.sh share: options, servers, rows of the table."""
import argparse
import contextlib
import csv
import pathlib
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]


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
    csv.writer(sys.stdout, lineterminator="\n").writerow([client, what, ours, peer])
    sys.stdout.flush()


def note(text):
    print(text, file=sys.stderr, flush=True)


def require(condition, what):
    """A failed expectation ends the run."""
    if not condition:
        note(f"ecosystem: FAILED: {what}")
        sys.exit(1)


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
