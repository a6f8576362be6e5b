"""Speed of packed models beside llama.cpp's, in one run: called by bench/peers.sh, which says how.

Both run models with random weights in the same shapes, inside one process and in turns of some tokens. Small ones are whole; of larger ones there are
2 and 4 blocks:
    block = (4 blocks - 2 blocks) / 2,  whole model = 2 blocks + (depth - 2) * block.
A round takes every format once, its models one right after the other, beginning with another format each time, and gives one such figure
per format and its ratios to the peers' of the same round: when the machine slows down for some seconds, both sides of a ratio slow down. Reported are
medians over the rounds with their quartiles, and, as "least", the same figure from the least times of all rounds, which do not come from the same
moment. A round where 4 blocks took no longer than 2 counts as infinitely fast. The output head has 8 bits on both sides (int8 codes; Q8_0)."""
import argparse, csv, ctypes, glob, json, os, shutil, statistics, subprocess, sys, time

DEPTHS = {  # blocks of the whole model; the rest of a shape is in the folders that gptvq bench make-model writes
    "llama-2-7b": 32, "llama-3-8b": 32, "llama-3.2-1b": 16, "llama-3.2-3b": 28, "mistral-7b": 32, "mixtral-8x7b": 32, "phi-3-mini": 32,
    "qwen2.5-0.5b": 24, "qwen2.5-1.5b": 28, "qwen2.5-7b": 28, "smollm2-135m": 30, "smollm2-360m": 32, "stories": 4,
}
WHOLE = {"llama-3.2-1b", "qwen2.5-0.5b", "qwen2.5-1.5b", "smollm2-135m", "smollm2-360m", "stories"}  # two blocks of them are lost in the noise of the head
PACKED = {  # name: options of gptvq bench make-model
    "gptvq 2-D 2.125": ["--dim", "2", "--bits", "2.125"],
    "gptvq 2-D 2.25": ["--dim", "2", "--bits", "2.25"],
    "gptvq 2-D 3.125": ["--dim", "2", "--bits", "3.125"],
    "gptvq 4-D 2.25": ["--dim", "4", "--bits", "2.25"],
    "gptvq trellis 2": ["--code", "trellis", "--bits", "2"],
    "gptvq trellis 3": ["--code", "trellis", "--bits", "3"],
    "own int4 g128": ["--method", "gptq", "--index-bits", "4", "--group-size", "128"],
}
PEERS = {"llama.cpp Q4_0": "Q4_0", "llama.cpp Q2_K": "Q2_K", "llama.cpp IQ2_XXS": "IQ2_XXS"}
KINDS, ENDLESS = ("decode", "prompt"), 1e12
BLOCKS = {"Q4_0": (32, 18, (0,)), "Q8_0": (32, 34, (0,)), "Q2_K": (256, 84, (80, 82)), "IQ2_XXS": (256, 66, (0,))}


def shape_of(folder):
    with open(f"{folder}/config.json") as file:
        config = json.load(file)
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return dict(hidden=hidden, mlp=config["intermediate_size"], heads=heads, kv_heads=config["num_key_value_heads"],
                head=config.get("head_dim") or hidden // heads, vocab=config["vocab_size"], tied=config["tie_word_embeddings"],
                experts=config.get("num_local_experts", 0), used=config.get("num_experts_per_tok", 0))


def fits(kind, s):
    """Whether every row is whole blocks; llama.cpp falls back to larger types where not."""
    return all(width % BLOCKS[kind][0] == 0 for width in (s["hidden"], s["mlp"], s["heads"] * s["head"]))


def write_gguf(path, s, layers, kind):
    """Random blocks; their fp16 scales are set to 0.01, so that every value is finite. Every shape as Llama's or Mixtral's blocks, without biases
    and with separate q, k, v and gate, up: the same matrices."""
    import gguf
    import numpy
    rng = numpy.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(s["hidden"])
    writer.add_block_count(layers)
    writer.add_feed_forward_length(s["mlp"])
    writer.add_head_count(s["heads"])
    writer.add_head_count_kv(s["kv_heads"])
    writer.add_rope_dimension_count(s["head"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(s["vocab"])
    writer.add_tokenizer_model("no_vocab")
    if s["experts"]:
        writer.add_expert_count(s["experts"])
        writer.add_expert_used_count(s["used"])

    def matrix(name, rows, cols, kind, experts=0):
        values, size, scales = BLOCKS[kind]
        data = rng.integers(0, 256, (max(experts, 1) * rows, cols // values, size), dtype=numpy.uint8)
        for at in scales:
            data[:, :, at:at + 2] = numpy.array([0.01], dtype=numpy.float16).view(numpy.uint8)
        data = data.reshape(*([experts] if experts else []), rows, -1)
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])

    def norm(name):
        writer.add_tensor(name, numpy.ones(s["hidden"], dtype=numpy.float32))

    q, kv = s["head"] * s["heads"], s["head"] * s["kv_heads"]
    matrix("token_embd.weight", s["vocab"], s["hidden"], "Q8_0")
    for i in range(layers):
        norm(f"blk.{i}.attn_norm.weight")
        norm(f"blk.{i}.ffn_norm.weight")
        for name, rows, cols in (("attn_q", q, s["hidden"]), ("attn_k", kv, s["hidden"]), ("attn_v", kv, s["hidden"]), ("attn_output", s["hidden"], q)):
            matrix(f"blk.{i}.{name}.weight", rows, cols, kind)
        of = "_exps" if s["experts"] else ""
        if s["experts"]:
            writer.add_tensor(f"blk.{i}.ffn_gate_inp.weight", rng.standard_normal((s["experts"], s["hidden"]), dtype=numpy.float32))
        for name, rows, cols in (("ffn_gate", s["mlp"], s["hidden"]), ("ffn_up", s["mlp"], s["hidden"]), ("ffn_down", s["hidden"], s["mlp"])):
            matrix(f"blk.{i}.{name}{of}.weight", rows, cols, kind, s["experts"])
    norm("output_norm.weight")
    if not s["tied"]:
        matrix("output.weight", s["vocab"], s["hidden"], "Q8_0")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Gptvq:
    """A model folder through libgptvq: one session, of a model of its own or of another one's."""
    class Options(ctypes.Structure):
        _fields_ = [("size", ctypes.c_size_t), ("compute", ctypes.c_int), ("head_bits", ctypes.c_uint), ("callbacks", ctypes.c_void_p)]

    class Info(ctypes.Structure): # its beginning
        _fields_ = [("size", ctypes.c_size_t), ("architecture", ctypes.c_char * 64), ("sizes", ctypes.c_size_t * 9), ("counts", ctypes.c_uint64 * 4),
                    ("bits_per_value", ctypes.c_double)]

    class Error(ctypes.Structure):
        _fields_ = [("status", ctypes.c_int), ("message", ctypes.c_char * 1024)]

    library = None
    VOCAB, CONTEXT = 6, 7  # among Info.sizes

    @classmethod
    def load(cls, program, threads):
        """libgptvq.so beside the program, in the build or installed."""
        beside = os.path.dirname(os.path.abspath(program))
        found = [path for path in (f"{beside}/libgptvq.so", f"{beside}/../lib/libgptvq.so") if os.path.exists(path)]
        if not found:
            sys.exit(f"there is no libgptvq.so beside {program}")
        cls.library = ctypes.CDLL(found[0])
        cls.library.gptvq_session_forward.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int,
                                                      ctypes.c_void_p]
        cls.library.gptvq_session_create.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
        for destroy in (cls.library.gptvq_session_destroy, cls.library.gptvq_model_close):
            destroy.argtypes, destroy.restype = [ctypes.c_void_p], None
        cls.library.gptvq_session_truncate.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        cls.library.gptvq_set_threads(threads)

    def __init__(self, path, positions, shared=None):
        self.error, self.session, self.model = self.Error(), ctypes.c_void_p(), ctypes.c_void_p()
        options = self.Options(ctypes.sizeof(self.Options))  # the defaults
        if shared:
            self.model = shared.model
        else:
            self.check(self.library.gptvq_model_open(path.encode(), ctypes.byref(options), ctypes.byref(self.model), ctypes.byref(self.error)))
        self.check(self.library.gptvq_session_create(self.model, positions, ctypes.byref(self.session), ctypes.byref(self.error)))
        info = self.Info(ctypes.sizeof(self.Info))
        self.library.gptvq_model_get_info(self.model, ctypes.byref(info))
        self.bits, self.context = info.bits_per_value, info.sizes[self.CONTEXT]
        self.logits = (ctypes.c_float * info.sizes[self.VOCAB])()

    def check(self, status):
        if status != 0:
            sys.exit(self.error.message.decode())

    def close(self):
        self.library.gptvq_session_destroy(self.session)
        self.library.gptvq_model_close(self.model)

    def set_threads(self, threads):
        self.library.gptvq_set_threads(threads)

    def reset(self):
        self.library.gptvq_session_reset(self.session)

    def back(self, position):
        self.check(self.library.gptvq_session_truncate(self.session, position, ctypes.byref(self.error)))

    def forward(self, ids):
        self.check(self.library.gptvq_session_forward(self.session, ids, len(ids), self.logits, 0, ctypes.byref(self.error)))


class Llama:
    """A gguf file through llama.cpp: one context, of a model of its own or of another one's."""
    def __init__(self, path, positions, batch, threads, shared=None):
        import llama_cpp
        self.api, self.path = llama_cpp, path
        self.model = shared.model if shared else llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = positions, batch, batch
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params) if self.model else None
        if not self.context:
            sys.exit(f"{path}: llama.cpp cannot open it")

    def set_threads(self, threads):
        self.api.llama_set_n_threads(self.context, threads, threads)

    def reset(self):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def close(self):
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)

    def back(self, position):
        if not self.api.llama_memory_seq_rm(self.api.llama_get_memory(self.context), 0, position, -1):
            sys.exit(f"{self.path}: llama.cpp cannot go back to position {position}")

    def forward(self, ids):
        if self.api.llama_decode(self.context, self.api.llama_batch_get_one(ids, len(ids))) != 0:
            sys.exit(f"{self.path}: llama_decode failed")
        self.api.llama_get_logits_ith(self.context, -1)


def start_llama():
    """llama.cpp, which says nothing from here on but what calls return."""
    import llama_cpp
    start_llama.silent = llama_cpp.llama_log_callback(lambda level, text, user: None)
    llama_cpp.llama_log_set(start_llama.silent, None)
    llama_cpp.llama_backend_init()


def timed(model, ids):
    start = time.perf_counter()
    model.forward(ids)
    return time.perf_counter() - start


def visit(model, ids, prompt, tokens):
    """Seconds of a prompt (0: none) or of `tokens` single tokens, after one that wakes the threads up."""
    time.sleep(0.02)  # the other library's threads stop spinning
    model.reset()
    one = [(ctypes.c_int32 * 1)(x) for x in ids[:tokens + 1]]
    model.forward(one[0])
    if prompt == 0:
        return [timed(model, x) for x in one[1:]]
    model.reset()
    return [timed(model, (ctypes.c_int32 * prompt)(*ids[:prompt]))]


def read_bandwidth(a):
    """GB/s"""
    threads = max(a.threads) if isinstance(a.threads, list) else a.threads
    run = subprocess.run([a.gptvq, "bench", "memory", "--rounds", "1", "--threads", str(threads), "--json"], check=True, capture_output=True)
    return json.loads(run.stdout)["bandwidth_gb_per_s"]


def cuts(shape):
    """Blocks of the models that stand for the whole one."""
    return (DEPTHS[shape],) if shape in WHOLE else (2, 4)


def wanted(a, name):
    return not a.formats or name == "llama.cpp Q4_0" or any(part in name for part in a.formats.split(","))


def show(value):
    return "" if value is None or value >= ENDLESS else f"{value:.2f}"


def open_models(a):
    """{format: {blocks: model}}; folders and files that are not there yet are made."""
    models, positions = {}, max(a.prompt, a.tokens + 1) + 8
    for name, options in PACKED.items():
        for layers in cuts(a.shape) if wanted(a, name) or not models else ():  # one at least: the shape is read from it
            path = f"{a.scratch}/{a.shape}-{name.replace(' ', '-')}-{layers}"
            if not os.path.exists(path):
                subprocess.run([a.gptvq, "bench", "make-model", "--shape", a.shape, "--layers", str(layers), "-o", path] + options,
                               check=True)
            models.setdefault(name, {})[layers] = Gptvq(path, positions)
    shape = shape_of(path)
    for name, kind in PEERS.items():
        for layers in cuts(a.shape) if wanted(a, name) and fits(kind, shape) else ():
            path = f"{a.scratch}/{a.shape}-{kind}-{layers}.gguf"
            if not os.path.exists(path):
                write_gguf(path + ".tmp", shape, layers, kind)
                os.replace(path + ".tmp", path)
            models.setdefault(name, {})[layers] = Llama(path, positions, max(a.prompt, 1), a.threads)
            models[name][layers].bits = 8 * BLOCKS[kind][1] / BLOCKS[kind][0]
    return models


def measure(a):
    import numpy
    models = open_models(a)
    ids = [int(x) for x in numpy.random.default_rng(1).integers(3, 900, max(a.prompt, a.tokens + 1))]
    layers_of = cuts(a.shape)
    times = {(kind, name, layers): [] for kind in KINDS for name in models for layers in layers_of}
    reads = []
    for kind, rounds, prompt in (("decode", a.rounds, 0), ("prompt", a.prompt_rounds, a.prompt)):
        for turn in range(rounds + 1 if kind == "decode" else rounds): # the first one reads the files
            names = list(models)
            for name in names[turn % len(names):] + names[:turn % len(names)]:
                for layers in layers_of if turn % 2 == 0 else layers_of[::-1]:
                    times[kind, name, layers].append(visit(models[name][layers], ids, prompt, a.tokens))
            reads.append(read_bandwidth(a))
            if turn % 10 == 0:
                print(f"{a.shape}: {kind}, round {turn} of {rounds}", file=sys.stderr)
    for name in models:
        for layers in layers_of:
            del times["decode", name, layers][0]
    for cut in models.values():
        for model in cut.values():
            model.close()
    results = {name: {kind: rounds_of([times[kind, name, layers] for layers in layers_of], DEPTHS[a.shape]) for kind in KINDS} for name in models}
    rows = []
    for name, kinds in results.items():
        lost = sum(x == 0 for x in kinds["decode"]["rounds"]), sum(x == 0 for x in kinds["prompt"]["rounds"])
        row = [a.shape, name, f"{models[name][layers_of[0]].bits:.4f}", a.threads]
        for kind, tokens in (("decode", 1), ("prompt", a.prompt)):
            row += [show(value) for value in speeds(kinds[kind], tokens)]
            for peer in ("llama.cpp Q4_0", "llama.cpp Q2_K"):
                row += [show(value) for value in (ratios(kinds[kind], results[peer][kind]) if peer in results else [None] * 4)]
        rows.append(row + [a.rounds, a.prompt_rounds, *lost, f"{max(reads):.1f}", f"{statistics.median(reads):.1f}"])
    return rows


def rounds_of(cut, depth):
    """Seconds of the whole model: from the least times of all rounds (None: noise outweighs the difference), and round by round (0: the same)."""
    def seconds(first, four=None):
        if four is None:
            return first
        return 0 if four <= first else first + (depth - 2) * (four - first) / 2
    least = seconds(*(min(map(min, rounds)) for rounds in cut)) if cut[0] else 0
    return {"least": least or None, "rounds": [seconds(*map(statistics.median, turn)) for turn in zip(*cut)]}


def quartiles(values):
    if len(values) < 2:
        return (values or [None]) * 3
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return [median, low, high]


def ratio(y, x):
    return y / x if x else ENDLESS if y else 1.0


def speeds(figure, tokens):
    """Tokens per second: from the least times, median, lower and upper quartile."""
    least = tokens / figure["least"] if figure["least"] else None
    return [least] + quartiles([ratio(tokens, x) for x in figure["rounds"]])


def ratios(figure, base):
    """Speed / speed of `base`: from the least times, then median and quartiles of the rounds' ratios."""
    least = base["least"] / figure["least"] if figure["least"] and base["least"] else None
    return [least] + quartiles([ratio(y, x) for x, y in zip(figure["rounds"], base["rounds"])])


HOWS = ("least_times", "median", "q1", "q3")
HEADER = (["shape", "format", "bits_per_value", "threads"]
          + [f"{kind}_{what}_{how}" for kind in ("decode", "prompt") for what in ("tokens_per_s", "vs_q4_0", "vs_q2_k") for how in HOWS]
          + ["decode_rounds", "prompt_rounds", "decode_rounds_lost", "prompt_rounds_lost", "read_gb_per_s", "read_gb_per_s_median"])


def earlier(path):
    """The rows of another run, whose shapes may stay: every ratio is of one shape."""
    if not os.path.exists(path):
        return []
    with open(path, newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    return rows if header == HEADER else []


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--gptvq", required=True)
    p.add_argument("--scratch", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--shapes", default="llama-2-7b,mistral-7b,stories", help=", ".join(DEPTHS))
    p.add_argument("--formats", default="", help="parts of the names of the formats to measure, comma-separated; default all")
    p.add_argument("--rounds", type=int, default=60)
    p.add_argument("--prompt-rounds", type=int, default=7)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--tokens", type=int, default=8, help="single tokens of a turn")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--discard", action="store_true", help="remove a shape's models once it is measured")
    a = p.parse_args()
    os.makedirs(a.scratch, exist_ok=True)
    Gptvq.load(a.gptvq, a.threads)
    start_llama()
    rows = [row for row in earlier(a.out) if row[0] not in a.shapes.split(",")]
    for a.shape in a.shapes.split(","):
        if a.shape not in DEPTHS:
            sys.exit(f"unknown shape {a.shape}: {', '.join(DEPTHS)}")
        rows += measure(a)
        for path in glob.glob(f"{a.scratch}/{a.shape}-*") if a.discard else ():
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    with open(a.out, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
