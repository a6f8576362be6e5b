#!/bin/sh
# The model of docs/SCALING.md: hours, and bytes, of quantizing on 1 to 64 machines with pairs of 2.25 bits, and beside it what was measured. Prints its tables.
#
#   bench/scaling-model.sh [CORES [WINDOWS [CSV]]]    cores of a machine (default 32), calibration windows of 2,048 tokens (default 256), measured runs
#                                                     (default bench/scaling.csv: those with 1 and 2 ranks of its first model, SmolLM2-135M-4)
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
awk -v cores="${1:-32}" -v big="${2:-256}" -v csv="${3:-$here/bench/scaling.csv}" '
# What a core does (EPYC Zen 4, docs/METHOD.md, "Time": the block of the shape of Llama-2-7B): products in bf16, in fp32, factorisations in double, the
# additions of the codebook update, all a second; and seconds of what is serial for each weight: k-means, loop and re-assignment, by rows; decoding and
# packing, which each rank does.
function speeds() {
  forward = 165e9; gram = 200e9; cross = 187e9; fp32 = 95e9; double = 34e9; additions = 13.7e9
  by_rows = 0.44e-6; by_each = 0.04e-6
  memory = 200e9 # bytes a machine reads a second while the model writes
}
# c: columns of an input, m: rows of all its linears, stream: the layer writes to the residual stream
function input(c, m, stream,   height, values, kept, formed) {
  height = stream ? m : c
  linears += m * c
  sums += c * (c + 1) / 2 + height * c
  shared["Hessians"] += tokens * c * (c + 1) / gram
  shared["mismatch"] += tokens * 2 * height * c / cross
  alone["mismatch"] += 2 * (height + m) * c * c / fp32 # divided by H; W H, or the map applied
  alone["factorisation"] += 2 / 3 * c ^ 3 / double
  # four updates, of 16 pairs for each 256 columns of 4 rows: one product, systems formed once, or each time where they are not kept, and solved in some
  # 25 steps (src/quant/layer/direct.c, kept.c: 1 GiB of them; three times what moved takes 0.7 times as long as forming)
  values = c / 8; kept = 2 ^ 30 / (m / 4 * 2 * values ^ 2 * (1 + 256 / c)); if (kept > 1) kept = 1
  formed = 1 + 0.7 * kept + 3 * (1 - kept)
  shared["update"] += 2 * m * c * c / fp32 + formed * m * (c * c / 2 + c * values / 2) / additions + 4 * m / 4 * 25 * values ^ 2 / additions
  # a product for feedback (half of one), three for re-assignment, whose six sweeps then follow the 2 % of sub-vectors that move; half of one twice for the error
  shared["others"] += (1 + 6 + 2) * m * c * c / fp32 + 6 * 0.02 * m * c * c / additions + by_rows * m * c
  alone["others"] += by_each * m * c
}
function block(h, heads, kv, inter, length_, windows_) {
  linears = sums = 0
  split("", shared); split("", alone)
  tokens = windows_ * length_
  groups = windows_ <= 8 ? windows_ : int(windows_ / 4) # src/dist/deal.h
  if (windows_ > 8 && groups < 8) groups = 8
  if (groups > 64) groups = 64
  input(h, heads + 2 * kv, 0); input(heads, h, 1); input(h, 2 * inter, 0); input(inter, h, 1)
  shared["forward"] = tokens * 2 * (2 * linears + 2 * (length_ + 1) * heads) / forward # both streams
  # the first block sees what the original sees: no mismatch of q, k and v; nobody looks at what the last down_proj makes
  end_shared = tokens * 2 * h * h / cross + tokens * 2 * 2 * inter * h / forward
  end_alone = (2 * h ^ 3 + 2 * (heads + 2 * kv) * h * h) / fp32
  all_shared = all_alone = 0
  for (s in shared) all_shared += shared[s]
  for (s in alone) all_alone += alone[s]
}
# to a rank: its part of the sums of groups, the totals, the quantized rows (2 bytes a pair)
function received(n) { return n == 1 ? 0 : (groups * 4 * sums / n + 8 * sums) * (1 - 1 / n) + linears * (1 - 1 / n) }
function model(name, layers, h, inter, kv,   n, work, one, g, wire, together, params, texts) {
  block(h, h, kv, inter, 2048, big)
  printf "| %s | | %.0f core hours shared, %.1f by each | | | |\n", name, layers * all_shared / 3600, layers * all_alone / 3600
  for (n = 1; n <= 64 && n <= groups; n *= 2) {
    work = (all_shared / n + all_alone) / cores # of a block; both ends are nothing beside so many
    if (n == 1) one = work
    for (g = 0; g < 2; g++) wire[g] = received(n) * 8 / ((g ? 100 : 10) * 1e9)
    printf "| | %d | %.1f | %.1f | %.1f (%.1f x) | %.1f (%.1f x) |\n", n, layers * work / 3600, received(n) / 1e9,
           layers * (work + wire[0]) / 3600, one / (work + wire[0]), layers * (work + wire[1]) / 3600, one / (work + wire[1])
  }
  # half of the windows and two to judge by, as many side by side as 4 GiB hold the caches of; 8,192 tokens through both models
  params = layers * linears
  together = int(4 * 2 ^ 30 / (layers * 2 * kv * 2 * 2048))
  if (together > 128) together = 128
  texts = big / 2 + 2
  beside = beside sprintf("%s: %.1f hours for what the model writes (%d windows, %d side by side), %.1f for the losses at the end\n", name,
                          int((texts + together - 1) / together) * 2048 * 2 * params / memory / 3600, texts, together,
                          8192 * 2 * 2 * params / forward / cores / 3600)
}
function check(what, predicted, measured) { printf "| %s | %.2f | %.2f | %+.0f %% |\n", what, predicted, measured, 100 * (predicted / measured - 1) }
BEGIN {
  speeds()
  FS = ","
  print "| | model | measured | |\n| --- | --- | --- | --- |"
  while ((getline < csv) > 0) if ($1 == "smollm2-135m-4" && $4 == 1) { time[$3] = $5; sent[$3] = $9 }
  block(576, 576, 192, 1536, 1024, 64)
  one = 4 * (all_shared + all_alone) - end_shared - end_alone; two = 4 * (all_shared / 2 + all_alone) - end_shared / 2 - end_alone
  if (1 in time && 2 in time) {
    check("4 blocks of SmolLM2-135M, 64 windows of 1,024 tokens, 1 rank, seconds", one, time[1])
    check("the same, 2 ranks, seconds", two, time[2])
    check("how many times as fast", one / two, time[1] / time[2])
    check("MB sent for a block by both", 2 * received(2) / 1e6, sent[2] / 1e6)
  }
  block(4096, 4096, 4096, 11008, 1024, 32)
  check("a block of Llama-2-7B, 32 windows of 1,024 tokens, 1 rank", all_shared + all_alone - end_shared - end_alone, 661)
  print "\n| model | machines | hours of work | GB to each, a block | hours, 10 Gbit/s | hours, 100 Gbit/s |"
  print "| --- | --- | --- | --- | --- | --- |"
  model("70B", 80, 8192, 28672, 1024)
  model("405B", 126, 16384, 53248, 1024)
  printf "\nOn rank 0 alone, not in the table:\n%s", beside
}'
