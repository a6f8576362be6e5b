#!/bin/sh
# The model of docs/SCALING.md, "One card": what quantizing takes on a card of the H100's kind, from FLOP and bytes, with what the CPU still does.
# Nothing overlaps, as in the program: all parts are added up. Prints the table.
#
#   bench/gpu-model.sh [NAME=VALUE…]     with another value of what stands in `assume`, such as copies=50
#   bench/gpu-model.sh --flop SHAPE N    FLOP of the stages of N blocks of llama-2-7b or llama-2-70b, to be compared with those of
#                                        gptvq bench make-model --shape SHAPE --layers N --dense -o one && cp examples/stories-4m/tokenizer* one
#                                        gptvq quantize one --dry-run --json --calib absent.txt --calib-samples 128 --calib-length 2048
set -eu
assume="
windows=128 length=2048   calibration tokens
bf16=600 tf32=300 fp32=50 fp64=30   TFLOP/s that products reach: an H100 has 990, 495, 67, 67 on paper
attention=20              TFLOP/s of attend.cuh: of shared memory, which reads 8 numbers for 16 multiplications, come 29 at most
hbm=2.5                   TB/s of the memory of the card: 3.35 on paper
processors=132 clock=1.7  of the card, GHz
path=200                  cycles of a processor for a weight of a trellis in a pass (src/cuda/kernels/path.cuh)
round=70                  microseconds of a round of the k-means of tables
pinned=25 copies=20       GB/s between card and host, of pinned memory (activations) and of other, by way of pinned buffers that all threads fill
cores=32                  of the host; what one does, GFLOP/s of products (docs/METHOD.md, as bench/scaling-model.sh):
bf16core=310 fp32core=100 fp64core=45
decode=9                  nanoseconds of a core for a weight that is decoded and compared: measured, a trellis on an EPYC Zen 4
memory=200 disk=2         GB/s of memory of the host, by all threads; of files of the model
caches=4                  GiB of caches of texts that the model writes side by side
weight=3                  core microseconds of k-means and loop for a weight on the host
"
shape='' layers=''
if [ "${1:-}" = --flop ]; then
  shape=${2:?SHAPE} layers=${3:?N}
  shift 3
fi
for setting in "$@"; do
  echo "$assume" | grep -qE "(^| )${setting%%=*}=" || { echo "gpu-model.sh: ${setting%%=*} is no assumption" >&2; exit 2; }
done
echo "$assume $*" | awk -v only="$shape" -v only_layers="$layers" '
{ for (i = 1; i <= NF; i++) if (split($i, pair, "=") == 2) is[pair[1]] = pair[2] }

# c: inputs, m: rows of the n linears that read them, o: rows of the one that writes to the residual stream, or 0
function input(c, n, m, o,   height, tokens, panel) {
  panel = c < 2048 ? c : 2048                              # columns of a triangle that the card multiplies by at a time
  tokens = is["windows"] * is["length"]
  height = o ? o : c
  linears += m * c
  volume += m * c * c
  tries += 256 * n * c                                     # weights that sensitivities are measured by,
  powers += 2.75 * 256 * n * c * c                         # FLOP of their loop and of what errors relate to
  hessian += tokens * c * (c + 1)
  cross += 2 * tokens * height * c
  factor += 2 / 3 * c ^ 3
  maps += 2 * (height + o) * c * c + (o ? 0 : 2 * m * c * c) # divided, less the weights by the Hessian; the new weights
  panels += 2 * height * c * panel                         # what the card multiplies of the zeros of a triangle
  mapped += o ? 12 * o * c : 12 * c * c + 8 * m * c        # bytes: sums up as means, weights up, change down; map up again, weights up and down
  changed += o * c
  numbers += c * c / 2 + height * c                        # sums
  squares += c * c
  crosses += height * c
  groups += n * int((c + 255) / 256)
}
function shape(name) {
  if (name == "llama-2-7b") { layers = 32; h = 4096; inter = 11008; kv = 4096 }
  else if (name == "llama-2-70b") { layers = 80; h = 8192; inter = 28672; kv = 1024 }
  else { print "gpu-model.sh: llama-2-7b or llama-2-70b" > "/dev/stderr"; exit 2 }
  vocab = 32000
  linears = volume = hessian = cross = factor = maps = panels = mapped = changed = numbers = squares = crosses = groups = tries = powers = 0
  input(h, 3, h + 2 * kv, 0); first_cross = cross; first_maps = maps
  input(h, 1, h, h); input(h, 2, 2 * inter, 0); input(inter, 1, h, h)
  tokens = is["windows"] * is["length"]
  scores = 2 * (is["length"] + 1) * h                      # of attention, a token
  head = is["windows"] / 4 > 8 ? int(is["windows"] / 4) : 8 # windows that the Hessian of the output head is made of
  if (head < 28 * h / is["length"]) head = int((28 * h + is["length"] - 1) / is["length"])
  if (head > is["windows"] / 2) head = is["windows"]
}
function stage(name, flop) { printf "%-20s %.4g\n", name, flop }
function flops(   n) {
  n = only_layers
  stage("calibration text", (is["windows"] / 2 + 2) * is["length"] * (n * (2 * linears + scores) + 2 * vocab * h))
  stage("gradients", 8192 * (n * (6 * linears + 4.5 * scores) + 4 * vocab * h))
  stage("sensitivities", 8192 * n * (2 * linears + scores + hessian / tokens) + n * (factor + powers))
  stage("forward, original", n * tokens * (2 * linears + scores))
  stage("forward, quantized", (tokens + head * is["length"]) * n * (2 * linears + scores) - tokens * 2 * inter * h)
  stage("Hessians", n * hessian + head * is["length"] * h * h)
  stage("mismatch", n * (cross + maps) - first_cross - first_maps)
  stage("factorisation", n * factor + 2 / 3 * h ^ 3)
  stage("losses at the end", 2 * 4 * is["length"] * (n * (2 * linears + scores) + 2 * vocab * h))
}

function part(where, text, seconds) {
  rows++
  place[rows] = where; label[rows] = text
  figure[rows, model] = seconds
  total[model, where == "default" ? 2 : 1] += seconds
  if (where != "default") split_[model, where] += seconds
}
function compute(name,   weights, stream, T, half, single, double, side, passes) {
  shape(name)
  passes = 2 + head / is["windows"]
  rows = 0
  T = 1e12
  half = is["cores"] * is["bf16core"] * 1e9; single = is["cores"] * is["fp32core"] * 1e9; double = is["cores"] * is["fp64core"] * 1e9
  weights = layers * linears
  stream = tokens * h * 4
  part("card", "forward passes, bf16: both streams, and some for the head", passes * 2 * weights * tokens / is["bf16"] / T)
  part("card", "attention of these", passes * layers * scores * tokens / is["attention"] / T)
  part("card", "Hessians and mismatch, TF32", layers * (hessian + cross) / is["tf32"] / T)
  part("card", "their sums in double, 28 bytes a number for 1,024 tokens", layers * numbers * 28 * tokens / 1024 / is["hbm"] / T)
  part("card", "norms, gates, rounding: 100 bytes a value of the stream, 26 of the MLP", passes * layers * tokens * (100 * h + 26 * inter) / is["hbm"] / T)
  part("card", "mismatch: division by H, new weights, fp32", layers * (maps + panels) / is["fp32"] / T)
  part("card", "factorisations, double", layers * factor / is["fp64"] / T)
  part("card", "paths: loop, three re-assignments", 4 * weights * is["path"] / is["processors"] / is["clock"] / 1e9)
  part("card", "solver: products, 13 r c², fp32", 13 * layers * volume / is["fp32"] / T)
  part("card", "layer errors: products, 4 r c², fp32", 4 * layers * volume / is["fp32"] / T)
  part("card", "tables: 24 rounds a group of 256 columns", 24 * layers * groups * is["round"] / 1e6)
  part("copies", "residual streams, fp32: 12 up, 4 down a block", 16 * layers * stream / is["pinned"] / 1e9)
  part("copies", "inputs of o and down that are kept, down and up", 2 * layers * tokens * (h + inter) * 4 / is["pinned"] / 1e9)
  part("copies", "weights of both streams, bf16, and for the head", 6 * weights / is["copies"] / 1e9)
  part("copies", "sums, once a layer; factors up and down; H and U", layers * (20 * squares + 8 * crosses) / is["copies"] / 1e9)
  part("copies", "mismatch: means, maps, weights, new weights", layers * mapped / is["copies"] / 1e9)
  part("copies", "solver: 74 bytes a weight", 74 * weights / is["copies"] / 1e9)
  part("copies", "layer errors: 8 bytes a weight", 8 * weights / is["copies"] / 1e9)
  part("CPU", "passes over sums, H and its factor, maps, new weights", layers * (24 * numbers + 60 * squares + 12 * crosses + 4 * linears + 12 * changed) / is["memory"] / 1e9)
  part("CPU", "layer errors: weights decoded and compared", weights * is["decode"] / is["cores"] / 1e9)
  part("CPU", "output head: its Hessian, its codes", (head * is["length"] * h * h + 3 * vocab * h * h) / single)
  part("CPU", "streams: to and from bf16, differences", layers * stream * (16 * 1.5 + 2 * 5) / is["memory"] / 1e9)
  part("CPU", "original read, result written", (2 * weights + 4 * vocab * h + weights * 2.25 / 8) / is["disk"] / 1e9)
  part("CPU", "judging: weights to the card, both models", 4 * weights / is["copies"] / 1e9)
  texts = is["windows"] / 2 + 2
  side = int(is["caches"] * 2 ^ 30 / (layers * 2 * kv * 2 * is["length"])) # texts at a time; for each of their tokens all weights are read
  if (side > 128) side = 128
  part("default", "text that the model writes: " texts " windows", int((texts + side - 1) / side) * is["length"] * 2 * weights / is["memory"] / 1e9)
  part("default", "gradients of 8,192 tokens", 8192 * (layers * (6 * linears + 4.5 * scores) + 4 * vocab * h) / half)
  part("default", "sensitivities", layers * (8192 * (2 * linears + scores + hessian / tokens) / half + factor / double + powers / single + tries * is["weight"] / is["cores"] / 1e6))
}
function minutes(s) { return s < 3600 ? sprintf("%.1f min", s / 60) : sprintf("%.1f h", s / 3600) }
END {
  if (only != "") { shape(only); flops(); exit }
  for (model = 1; model <= 2; model++) compute(model == 1 ? "llama-2-7b" : "llama-2-70b")
  print "| where | what | 7B, s | 70B, s |"
  print "| --- | --- | --- | --- |"
  for (i = 1; i <= rows; i++)
    if (place[i] != "default") printf "| %s | %s | %.0f | %.0f |\n", place[i], label[i], figure[i, 1], figure[i, 2]
  n = split("card copies CPU", names, " ")
  for (i = 1; i <= n; i++) printf "| | **%s** | %s | %s |\n", names[i], minutes(split_[1, names[i]]), minutes(split_[2, names[i]])
  printf "| | **`--calib-self 0 --allocate uniform`** | %s | %s |\n", minutes(total[1, 1]), minutes(total[2, 1])
  for (i = 1; i <= rows; i++)
    if (place[i] == "default") printf "| CPU | %s | %.0f | %.0f |\n", label[i], figure[i, 1], figure[i, 2]
  printf "| | **the default recipe** | %s | %s |\n", minutes(total[1, 1] + total[1, 2]), minutes(total[2, 1] + total[2, 2])
}'
