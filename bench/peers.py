"""Speed of packed models beside llama.cpp's, in one run: called by bench/peers.sh, which says how.

Both run models of 2 and 4 blocks with random weights in the same shapes, in turns, round by round. From the least (and the median) times
    block = (4 blocks - 2 blocks) / 2,  whole model = 2 blocks + (depth - 2) * block.
The output head has 8 bits on both sides (int8 codes; Q8_0)."""
import argparse, csv, json, os, statistics, subprocess, sys, time

SHAPES = {
    "llama-2-7b": dict(hidden=4096, mlp=11008, heads=32, kv_heads=32, vocab=32000, depth=32),
    "mistral-7b": dict(hidden=4096, mlp=14336, heads=32, kv_heads=8, vocab=32000, depth=32),
    "stories": dict(hidden=256, mlp=768, heads=8, kv_heads=4, vocab=1024, depth=4),
}
PACKED = {  # name: options of gptvq bench make-model
    "gptvq 2-D 2.125": ["--dim", "2", "--bits", "2.125"],
    "gptvq 2-D 2.25": ["--dim", "2", "--bits", "2.25"],
    "gptvq 2-D 3.125": ["--dim", "2", "--bits", "3.125"],
    "gptvq 4-D 2.25": ["--dim", "4", "--bits", "2.25"],
    "own int4 g128": ["--method", "gptq", "--index-bits", "4", "--group-size", "128"],
}
PEERS = {"llama.cpp Q4_0": "Q4_0", "llama.cpp Q2_K": "Q2_K", "llama.cpp IQ2_XXS": "IQ2_XXS"}
BLOCKS = {"Q4_0": (32, 18, (0,)), "Q8_0": (32, 34, (0,)), "Q2_K": (256, 84, (80, 82)), "IQ2_XXS": (256, 66, (0,))}


def write_gguf(path, shape, layers, kind):
    """Random blocks; their fp16 scales are set to 0.01, so that every value is finite."""
    import gguf
    import numpy
    rng = numpy.random.default_rng(0)
    s = SHAPES[shape]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(s["hidden"])
    writer.add_block_count(layers)
    writer.add_feed_forward_length(s["mlp"])
    writer.add_head_count(s["heads"])
    writer.add_head_count_kv(s["kv_heads"])
    writer.add_rope_dimension_count(s["hidden"] // s["heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(s["vocab"])
    writer.add_tokenizer_model("no_vocab")

    def matrix(name, rows, cols, kind):
        values, size, scales = BLOCKS[kind]
        data = rng.integers(0, 256, (rows, cols // values, size), dtype=numpy.uint8)
        for at in scales:
            data[:, :, at:at + 2] = numpy.array([0.01], dtype=numpy.float16).view(numpy.uint8)
        writer.add_tensor(name, data.reshape(rows, -1), raw_dtype=gguf.GGMLQuantizationType[kind])

    def norm(name):
        writer.add_tensor(name, numpy.ones(s["hidden"], dtype=numpy.float32))

    kv = s["hidden"] // s["heads"] * s["kv_heads"]
    matrix("token_embd.weight", s["vocab"], s["hidden"], "Q8_0")
    for i in range(layers):
        norm(f"blk.{i}.attn_norm.weight")
        norm(f"blk.{i}.ffn_norm.weight")
        for name, rows, cols in (("attn_q", s["hidden"], s["hidden"]), ("attn_k", kv, s["hidden"]), ("attn_v", kv, s["hidden"]),
                                 ("attn_output", s["hidden"], s["hidden"]), ("ffn_gate", s["mlp"], s["hidden"]),
                                 ("ffn_up", s["mlp"], s["hidden"]), ("ffn_down", s["hidden"], s["mlp"])):
            matrix(f"blk.{i}.{name}.weight", rows, cols, kind)
    norm("output_norm.weight")
    matrix("output.weight", s["vocab"], s["hidden"], "Q8_0")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def time_llama(path, prompt, tokens, threads):
    """Runs in a process of its own: the least and all times of prompts and single tokens, as JSON."""
    import ctypes
    import llama_cpp
    import numpy
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = max(prompt, tokens) + 8, max(prompt, 1), max(prompt, 1)
    params.n_threads = params.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        sys.exit(f"{path}: llama.cpp cannot open it")
    ids = numpy.random.default_rng(1).integers(3, 900, max(prompt, tokens) + 1).astype(numpy.int32)
    result = {"prompt": [], "decode": []}
    for turn in range(2):
        for kind, count, steps in (("prompt", prompt, 1), ("decode", 1, tokens)):
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
            for i in range(steps if count > 0 else 0):
                array = (ctypes.c_int32 * count)(*[int(x) for x in ids[i:i + count]])
                batch = llama_cpp.llama_batch_get_one(array, count)
                start = time.perf_counter()
                if llama_cpp.llama_decode(context, batch) != 0:
                    sys.exit(f"{path}: llama_decode failed")
                llama_cpp.llama_get_logits_ith(context, -1)
                if turn > 0:
                    result[kind].append(time.perf_counter() - start)
    print(json.dumps(result))


def run_gptvq(program, path, prompt, tokens, threads):
    out = subprocess.run([program, "bench", "model", path, "--prompt", str(prompt), "--tokens", str(tokens), "--repeats", "1",
                          "--threads", str(threads), "--samples", "--json"], check=True, capture_output=True, text=True)
    answer = json.loads(out.stdout)
    return ({"prompt": answer["prompt"]["seconds"], "decode": answer["decode"]["seconds"]}, answer["bits_per_value"],
            answer["bandwidth_gb_per_s"])


def run_llama(path, prompt, tokens, threads):
    out = subprocess.run([sys.executable, __file__, "time", path, str(prompt), str(tokens), str(threads)], check=True,
                         capture_output=True, text=True)
    return json.loads(out.stdout)


KINDS, HOWS = ("prompt", "decode"), ("min", "median")


def wanted(a, name):
    return not a.formats or name == "llama.cpp Q4_0" or any(part in name for part in a.formats.split(","))


def show(value, digits):
    return f"{value:.{digits}f}"


def whole(two, four, depth):
    block = (four - two) / 2
    return block, two + (depth - 2) * block


def measure(a):
    rows, figures, bandwidth, bits = [], {}, 0.0, {}
    s = SHAPES[a.shape]
    packed = {name: options for name, options in PACKED.items() if wanted(a, name)}
    peers = {name: kind for name, kind in PEERS.items() if wanted(a, name)}
    for name, options in packed.items():
        for layers in (2, 4):
            path = f"{a.scratch}/{a.shape}-{name.replace(' ', '-')}-{layers}"
            if not os.path.exists(path):
                subprocess.run([a.gptvq, "bench", "make-model", "--shape", a.shape, "--layers", str(layers), "-o", path] + options,
                               check=True)
            figures[name, layers] = (path, {"prompt": [], "decode": []})
    for name, kind in peers.items():
        for layers in (2, 4):
            path = f"{a.scratch}/{a.shape}-{kind}-{layers}.gguf"
            if not os.path.exists(path):
                write_gguf(path + ".tmp", a.shape, layers, kind)
                os.replace(path + ".tmp", path)
            figures[name, layers] = (path, {"prompt": [], "decode": []})
        bits[name] = 8 * BLOCKS[kind][1] / BLOCKS[kind][0]
    for turn in range(a.rounds):
        for (name, layers), (path, times) in figures.items():
            if name in PEERS:
                got = run_llama(path, a.prompt, a.tokens, a.threads)
            else:
                got, bits[name], reads = run_gptvq(a.gptvq, path, a.prompt, a.tokens, a.threads)
                bandwidth = max(bandwidth, reads)
            for kind in times:
                times[kind] += got[kind]
        print(f"{a.shape}: round {turn + 1} of {a.rounds}", file=sys.stderr)
    results = {}
    for name in list(packed) + list(peers):
        r = {"bits": bits[name]}
        for kind in KINDS:
            if not figures[name, 2][1][kind]:
                continue
            for how, reduce in (("min", min), ("median", statistics.median)):
                two, four = (reduce(figures[name, layers][1][kind]) for layers in (2, 4))
                r[kind, how, "block"], r[kind, how, "all"] = whole(two, four, s["depth"])
                if four <= two: # noise larger than what is measured
                    print(f"peers.py: {name}, {kind}, {how}: four blocks in {four:.4f} s, two in {two:.4f} s: the machine is too "
                          "busy for this figure, it is left out", file=sys.stderr)
                    del r[kind, how, "block"], r[kind, how, "all"]
        results[name] = r
    base = results["llama.cpp Q4_0"]
    for name, r in results.items():
        row = [a.shape, name, f"{r['bits']:.4f}", a.threads]
        for kind, tokens in (("decode", 1), ("prompt", a.prompt)):
            if kind == "decode":
                row += [show(1e3 * r[kind, how, "block"], 3) if (kind, how, "block") in r else "" for how in HOWS]
            row += [show(tokens / r[kind, how, "all"], 2) if (kind, how, "all") in r else "" for how in HOWS]
            row += [show(base[kind, how, "all"] / r[kind, how, "all"], 2)
                    if (kind, how, "all") in r and (kind, how, "all") in base else "" for how in HOWS]
        rows.append(row + [f"{bandwidth:.1f}"])
    return rows


HEADER = ["shape", "format", "bits_per_value", "threads", "block_ms_min", "block_ms_median", "decode_tokens_per_s_best",
          "decode_tokens_per_s_median", "decode_vs_q4_0_best", "decode_vs_q4_0_median", "prompt_tokens_per_s_best",
          "prompt_tokens_per_s_median", "prompt_vs_q4_0_best", "prompt_vs_q4_0_median", "read_gb_per_s"]


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "time":
        return time_llama(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    p = argparse.ArgumentParser()
    p.add_argument("--gptvq", required=True)
    p.add_argument("--scratch", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--shapes", default="llama-2-7b,mistral-7b")
    p.add_argument("--formats", default="", help="parts of the names of the formats to measure, comma-separated; default all")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--tokens", type=int, default=32)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    os.makedirs(a.scratch, exist_ok=True)
    rows = []
    for a.shape in a.shapes.split(","):
        rows += measure(a)
    with open(a.out, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
