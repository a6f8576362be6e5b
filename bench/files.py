"""Loss against the size of the whole file, beside llama.cpp's: called by bench/files.sh, which says how.

llama.cpp's files are its own mixes for the type, with an importance matrix (mean squares of each matrix's inputs) from the calibration text by
transformers. Losses of both kinds of files are on the same windows, every prediction scored: perplexity, and KL divergence from the unquantized model in
the same program."""
import argparse, csv, ctypes, json, math, os, subprocess, sys, time

from peers import Llama, start_llama

PEERS = ["Q4_K_M", "Q3_K_M", "Q2_K", "IQ2_M", "IQ2_XXS"]
WINDOW = 512
LINEAR = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
          "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def note(text):
    print(f"files.py: {text}", file=sys.stderr)


def importance(model, ids):
    """{tensor of the GGUF file: mean squares of its input columns}"""
    import numpy, torch, transformers
    net = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    sums, count = {}, 0

    def watch(name):
        def hook(module, inputs, output):
            x = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).double()
            sums[name] = sums.get(name, 0.0) + (x * x).sum(0)
        return hook
    for name, module in net.named_modules():
        parts = name.split(".")
        if isinstance(module, torch.nn.Linear) and "layers" in parts:
            layer = parts[parts.index("layers") + 1]
            module.register_forward_hook(watch(f"blk.{layer}.{LINEAR['.'.join(parts[-2:])]}.weight"))
    with torch.no_grad():
        for first in range(0, len(ids) - WINDOW + 1, WINDOW):
            net.model(torch.tensor([ids[first:first + WINDOW]]))
            count += WINDOW
    return {name: (total / count).float().numpy().astype(numpy.float32) for name, total in sums.items()}


def quantize(source, path, kind, imatrix, threads):
    import llama_cpp
    entries = (llama_cpp.llama_model_imatrix_data * (len(imatrix) + 1))()
    for entry, (name, values) in zip(entries, imatrix.items()):
        entry.name, entry.size = name.encode(), len(values)
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread, params.ftype, params.imatrix = threads, getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}"), entries
    if llama_cpp.llama_model_quantize(source.encode(), path.encode(), ctypes.byref(params)) != 0:
        sys.exit(f"{path}: llama.cpp cannot quantize {source} to {kind}")


class Logits:
    """Log-probabilities of a GGUF file, window after window."""
    def __init__(self, path, threads):
        self.llama = Llama(path, WINDOW, WINDOW, threads)
        self.vocab = self.llama.api.llama_vocab_n_tokens(self.llama.api.llama_model_get_vocab(self.llama.model))
        self.batch = self.llama.api.llama_batch_init(WINDOW, 0, 1)

    def of(self, window):
        import numpy, torch
        self.llama.reset()
        self.batch.n_tokens = WINDOW
        for i, token in enumerate(window):
            self.batch.token[i], self.batch.pos[i], self.batch.n_seq_id[i], self.batch.seq_id[i][0], self.batch.logits[i] = token, i, 1, 0, True
        if self.llama.api.llama_decode(self.llama.context, self.batch) != 0:
            sys.exit(f"{self.llama.path}: llama_decode failed")
        logits = numpy.ctypeslib.as_array(self.llama.api.llama_get_logits(self.llama.context), shape=(WINDOW, self.vocab))[:-1]
        return torch.log_softmax(torch.from_numpy(logits), dim=1)

    def close(self):
        self.llama.api.llama_batch_free(self.batch)
        self.llama.close()


def judge_llama(paths, original, windows, threads):
    """{path: (perplexity, the original's, KL divergence)}; the original runs once for all."""
    a, files, sums = Logits(original, threads), {path: Logits(path, threads) for path in paths}, {path: [0.0, 0.0, 0.0] for path in paths}
    for window in windows:
        p, at = a.of(window), (range(WINDOW - 1), window[1:])
        for path, b in files.items():
            q = b.of(window)
            for i, x in enumerate((-q[at].sum(), -p[at].sum(), (p.exp() * (p - q)).sum(dim=1).double().sum())):
                sums[path][i] += float(x)
    for logits in (a, *files.values()):
        logits.close()
    count = len(windows) * (WINDOW - 1)
    return {path: (math.exp(s[0] / count), math.exp(s[1] / count), s[2] / count) for path, s in sums.items()}


def tokens(a, text, windows):
    ids = json.loads(run([a.gptvq, "tokenize", a.model, "--text", text, "--no-bos", "--json"]))[:windows * WINDOW]
    return [ids[i:i + WINDOW] for i in range(0, len(ids) - WINDOW + 1, WINDOW)]


def size_of(path):
    """bytes of weights"""
    return sum(os.path.getsize(f"{path}/{n}") for n in os.listdir(path) if n.endswith(".safetensors")) if os.path.isdir(path) else os.path.getsize(path)


def main():
    p = argparse.ArgumentParser()
    for name in ("gptvq", "scratch", "out", "model", "calib", "settings"):
        p.add_argument(f"--{name}", required=True)
    p.add_argument("--text", action="append", required=True, help="NAME=FILE:WINDOWS")
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    start_llama()
    os.makedirs(a.scratch, exist_ok=True)
    texts = {name: tokens(a, *(lambda f, n: (f, int(n)))(*rest.rsplit(":", 1))) for name, rest in (t.split("=", 1) for t in a.text)}
    paths = {name: rest.rsplit(":", 1)[0] for name, rest in (t.split("=", 1) for t in a.text)}
    f16 = f"{a.scratch}/F16.gguf"
    if not os.path.exists(f16):
        run([a.gptvq, "export", a.model, "-o", f16, "--format", "gguf", "--type", "f16", "--quiet", "--force"])
    rows = {}
    if os.path.exists(a.out):
        with open(a.out) as file:
            rows = {row["file"]: row for row in csv.DictReader(file)}
    header = ["file", "bytes", "bits_per_weight"] + [f"{k}_{t}" for t in texts for k in ("excess", "kl")]

    def add(name, path, bits, losses):
        row = dict(file=name, bytes=size_of(path), bits_per_weight=bits)
        for text, (perplexity, before, kl) in losses.items():
            row[f"excess_{text}"], row[f"kl_{text}"] = f"{perplexity / before - 1:.4f}", f"{kl:.4f}"
        rows[name] = row
        with open(a.out + ".new", "w", newline="") as file:
            out = csv.DictWriter(file, header, extrasaction="ignore", lineterminator="\n")
            out.writeheader()
            out.writerows(sorted(rows.values(), key=lambda r: int(r["bytes"])))
        os.replace(a.out + ".new", a.out)
        note(json.dumps(row))

    imatrix, files = None, {kind: f"{a.scratch}/{kind}.gguf" for kind in PEERS if f"llama.cpp {kind}" not in rows}
    for kind, path in files.items():
        if not os.path.exists(path):
            imatrix = imatrix or importance(a.model, sum(tokens(a, a.calib, 128), []))
            quantize(f16, path + ".tmp", kind, imatrix, a.threads)
            os.replace(path + ".tmp", path)
    judged = {t: judge_llama(files.values(), f16, w, a.threads) for t, w in texts.items() if files}
    for kind, path in files.items():
        import gguf_model
        add(f"llama.cpp {kind}", path, f"{gguf_model.measure(path)[0]:.4f}", {t: losses[path] for t, losses in judged.items()})
    with open(a.settings) as file:
        for line in file:
            if line.startswith("#") or "|" not in line:
                continue
            name, options = line.strip().split("|")
            path = f"{a.scratch}/{name.replace(' ', '-')}"
            if name in rows:
                continue
            start = time.time()
            report = json.loads(run([a.gptvq, "quantize", a.model, "-o", path, "--calib", a.calib, "--judge-tokens", "0", "--quiet", "--json", "--force", "--threads",
                                     str(a.threads)] + options.split()))
            note(f"{name}: {time.time() - start:.0f} s")
            losses = {}
            for text, windows in texts.items():
                r = json.loads(run([a.gptvq, "compare", a.model, path, "--text", paths[text], "--ctx", str(WINDOW), "--max-windows", str(len(windows)), "--quiet",
                                    "--json"]))
                losses[text] = r["perplexity_b"], r["perplexity_a"], r["kl_mean"]
            add(name, path, f"{report['bits_per_value']:.4f}", losses)


main()
