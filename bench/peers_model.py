"""Speed of one real model in gptvq's formats and llama.cpp's, in one run: called by bench/peers.sh --model, which says how.

All formats lie in one process and take turns, beginning with another one each round: single tokens behind 0, 1024, … positions, and prompts, each
with every number of threads. Ratios are taken round by round; reported are medians over the rounds and their quartiles. Perplexities are of the same
token ids in windows of 512, every prediction scored; they belong to the files, not to the rounds."""
import argparse, csv, ctypes, json, math, os, subprocess, sys, time

import gguf_model
from peers import Gptvq, Llama, quartiles, ratio, read_bandwidth, show, start_llama, timed

BASE = "llama.cpp Q4_0"
PACKED = {  # name: options of gptvq quantize, does it take calibration text
    "gptvq 2-D 2.25": (["--dim", "2", "--bits", "2.25", "--nominal"], True),
    "gptvq RTN 4.25": (["--method", "rtn", "--bits", "4.25", "--nominal"], False),
}
PLAIN = "gptvq unquantized"
PEERS = ["F16", "Q4_0", "Q2_K"]  # IQ2_XXS needs an importance matrix, which llama-cpp-python does not make
WINDOW = 512


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr.strip())
    return done.stdout


def note(text):
    print(f"peers_model.py: {text}", file=sys.stderr)


def make_files(a):
    """{format: path}; what is not in the scratch folder yet is made."""
    files = {}
    for name, (options, calibrated) in PACKED.items():
        path = f"{a.scratch}/{name.replace(' ', '-')}"
        if not os.path.exists(path):
            if calibrated and not a.calib:
                sys.exit(f"{path} is not there: give --calib FILE to make it")
            note(f"making {path}")
            run([a.gptvq, "quantize", a.model, "-o", path, "--quiet", "--force"] + options
                + (["--calib", a.calib] + a.quantize.split() if calibrated else []))
        files[name] = path
    files[PLAIN] = a.model
    for kind in PEERS:
        path = files[f"llama.cpp {kind}"] = f"{a.scratch}/{kind}.gguf"
        if os.path.exists(path):
            continue
        note(f"making {path}")
        if kind == "F16":
            run([a.gptvq, "export", a.model, "-o", path + ".tmp", "--format", "gguf", "--type", "f16", "--quiet", "--force"])
        else:
            gguf_model.quantize(files["llama.cpp F16"], path + ".tmp", kind, max(a.threads))
        os.replace(path + ".tmp", path)
    return files


def size_of(path):
    """MB of weights"""
    paths = [f"{path}/{name}" for name in os.listdir(path) if name.endswith(".safetensors")] if os.path.isdir(path) else [path]
    return 1e-6 * sum(os.path.getsize(path) for path in paths)


def llama_perplexity(path, ids, threads):
    import numpy
    llama = Llama(path, WINDOW, WINDOW, threads)
    vocab = llama.api.llama_vocab_n_tokens(llama.api.llama_model_get_vocab(llama.model))
    batch = llama.api.llama_batch_init(WINDOW, 0, 1)
    total, count = 0.0, 0
    for first in range(0, len(ids) - WINDOW + 1, WINDOW):
        window = ids[first:first + WINDOW]
        llama.reset()
        batch.n_tokens = WINDOW
        for i, token in enumerate(window):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, True
        if llama.api.llama_decode(llama.context, batch) != 0:
            sys.exit(f"{path}: llama_decode failed")
        logits = numpy.ctypeslib.as_array(llama.api.llama_get_logits(llama.context), shape=(WINDOW, vocab))[:-1].astype(numpy.float64)
        largest = logits.max(axis=1)
        total += (numpy.log(numpy.exp(logits - largest[:, None]).sum(axis=1)) + largest - logits[numpy.arange(WINDOW - 1), window[1:]]).sum()
        count += WINDOW - 1
    llama.api.llama_batch_free(batch)
    llama.close()
    return math.exp(total / count)


def perplexities(a, files):
    """{format: perplexity}, kept in the scratch folder."""
    if not a.text:
        return {}
    kept, key = f"{a.scratch}/perplexities.json", f"{os.path.abspath(a.text)} {a.windows}"
    values = json.load(open(kept)).get(key, {}) if os.path.exists(kept) else {}
    ids = json.loads(run([a.gptvq, "tokenize", a.model, "--text", a.text, "--no-bos", "--json"]))[:a.windows * WINDOW]
    result = {}
    for name, path in files.items():
        made = f"{name} {os.path.getmtime(path)}"
        if made in values:
            result[name] = values[made]
            continue
        note(f"perplexity of {name}")
        if name.startswith("llama.cpp"):
            values[made] = llama_perplexity(path, ids, max(a.threads))
        else:
            values[made] = json.loads(run([a.gptvq, "eval", path, "--text", a.text, "--ctx", str(WINDOW), "--max-windows", str(a.windows), "--compute",
                                           "auto", "--threads", str(max(a.threads)), "--quiet", "--json"]))["perplexity"]
        with open(kept, "w") as file:
            json.dump({key: values}, file)
        result[name] = values[made]
    return result


class Format:
    """One session per depth, filled; the one at depth 0 takes the prompts too."""
    def __init__(self, a, name, path, ids):
        self.at, first, context = {}, None, a.context
        for depth in a.depths:
            positions = max(depth + a.tokens + 1, a.prompt if depth == 0 else 0) + 8
            if positions > context:
                continue
            one = Llama(path, positions, WINDOW, max(a.threads), first) if name.startswith("llama.cpp") else Gptvq(path, positions, first)
            first = first or one
            for at in range(0, depth, WINDOW):
                one.set_threads(max(a.threads))
                one.forward((ctypes.c_int32 * min(WINDOW, depth - at))(*ids[at:min(at + WINDOW, depth)]))
            self.at[depth] = one


def visit(a, format, what, depth, threads, ids):
    """Tokens per second of one prompt, or of single tokens: their median."""
    model = format.at[depth]
    model.set_threads(threads)
    time.sleep(0.02)  # the other library's threads stop spinning
    model.back(depth)
    model.forward((ctypes.c_int32 * 1)(ids[depth]))  # wakes its own up
    if what == "prompt":
        model.back(0)
        return a.prompt / timed(model, (ctypes.c_int32 * a.prompt)(*ids[:a.prompt]))
    seconds = [timed(model, (ctypes.c_int32 * 1)(ids[depth + 1 + i])) for i in range(a.tokens)]
    return 1 / quartiles(seconds)[0]


def measure(a, files):
    """{(what, depth, threads): {format: [tokens per second, round by round]}}, and the machine's GB/s."""
    import numpy
    ids = [int(x) for x in numpy.random.default_rng(1).integers(3, a.vocab, max(max(a.depths) + a.tokens + 1, a.prompt))]
    formats = {}
    for name, path in files.items():
        note(f"opening {name}")
        formats[name] = Format(a, name, path, ids)
    depths = [depth for depth in a.depths if depth in next(iter(formats.values())).at]
    tasks = [("decode", depth, threads, a.rounds) for depth in depths for threads in a.threads]
    tasks += [("prompt", 0, threads, a.prompt_rounds) for threads in a.threads]
    speeds = {task[:3]: {name: [] for name in files} for task in tasks}
    reads, names = [], list(files)
    for turn in range(max(a.rounds, a.prompt_rounds) + 1):  # the first one reads the files
        for what, depth, threads, rounds in tasks:
            for name in names[turn % len(names):] + names[:turn % len(names)] if turn <= rounds else ():
                speeds[what, depth, threads][name].append(visit(a, formats[name], what, depth, threads, ids))
        reads.append(read_bandwidth(a))
        note(f"round {turn} of {max(a.rounds, a.prompt_rounds)}")
    for task in speeds.values():
        for values in task.values():
            del values[0]
    return speeds, reads


HEADER = ["model", "format", "bits_per_value", "mb", "perplexity", "threads", "what", "tokens", "tokens_per_s", "q1", "q3", "vs_q4_0", "vs_q1", "vs_q3", "rounds",
          "read_gb_per_s", "date"]


def table(a, files, values, speeds, reads):
    for (what, depth, threads), task in speeds.items():
        for name, path in files.items():
            bits = gguf_model.measure(path)[0] if name.startswith("llama.cpp") else a.bits[name]
            against = quartiles([ratio(x, y) for x, y in zip(task[name], task[BASE])])
            yield [a.name, name, f"{bits:.4f}", f"{size_of(path):.1f}", show(values.get(name)), threads, what, a.prompt if what == "prompt" else depth,
                   *map(show, quartiles(task[name])), *map(show, against), len(task[name]), f"{quartiles(reads)[0]:.1f}", time.strftime("%Y-%m-%d")]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--gptvq", required=True)
    p.add_argument("--scratch", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--prepare", action="store_true", help="make the files and perplexities, measure nothing")
    p.add_argument("--calib", help="text that the 2.25-bit folder is calibrated on")
    p.add_argument("--quantize", default="", help="more options for it")
    p.add_argument("--text", help="text for perplexities")
    p.add_argument("--windows", type=int, default=24)
    p.add_argument("--depths", default="0,1024,4096")
    p.add_argument("--thread-counts", default="1,2")
    p.add_argument("--rounds", type=int, default=11)
    p.add_argument("--prompt-rounds", type=int, default=5)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--tokens", type=int, default=12, help="single tokens of a turn")
    a = p.parse_args()
    a.depths, a.threads = [[int(x) for x in text.split(",")] for text in (a.depths, a.thread_counts)]
    a.name = os.path.basename(os.path.abspath(a.model))
    with open(f"{a.model}/config.json") as file:
        config = json.load(file)
    a.vocab, a.context = config["vocab_size"], config["max_position_embeddings"]
    os.makedirs(a.scratch, exist_ok=True)
    start_llama()
    files = make_files(a)
    values = perplexities(a, files)
    for name, path in files.items():
        if name.startswith("llama.cpp"):
            note(f"{name}: {gguf_model.measure(path)}")
    if a.prepare:
        return
    a.bits = {name: json.loads(run([a.gptvq, "inspect", path, "--json"]))["bits_per_value"] for name, path in files.items() if os.path.isdir(path)}
    Gptvq.load(a.gptvq, max(a.threads))
    speeds, reads = measure(a, files)
    with open(a.out, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(table(a, files, values, speeds, reads))


if __name__ == "__main__":
    main()
