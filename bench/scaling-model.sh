#!/bin/sh
# The model of docs/SCALING.md: hours, and bytes, of quantizing on 1 to 64 machines, no more than groups of windows. Prints its table.
#
#   bench/scaling-model.sh [TFLOPS [TOKENS]]    what a machine reaches in products (default 2), calibration tokens (default 128 windows of 2,048)
set -eu
awk -v tflops="${1:-2}" -v tokens="${2:-262144}" '
# c: columns of an input, m: rows of all its linears, stream: the layer writes to the residual stream
function input(c, m, stream) {
  linears += m * c
  sums += c * (c + 1) / 2 + (stream ? m * c : c * c)
  shared += tokens * (c * (c + 1) + (stream ? 2 * m * c : 2 * c * c))
  shared += 26 * m * c * c                                        # the solver: loop, update, re-assignment; the error
  alone += 2 * c ^ 3 + 2 * (stream ? m : c) * c * c               # factor and inverse, the map
  alone += stream ? 0 : 2 * m * c * c                             # the map applied
}
function model(name, layers, h, inter, kv,   length_, windows, groups, nodes, per) {
  linears = sums = shared = alone = 0
  length_ = 2048
  windows = int(tokens / length_)
  groups = windows <= 8 ? windows : int(windows / 4) # src/dist/deal.h
  if (windows > 8 && groups < 8) groups = 8
  if (groups > 64) groups = 64
  input(h, h + 2 * kv, 0); input(h, h, 1); input(h, 2 * inter, 0); input(inter, h, 1)
  shared += tokens * 2 * (2 * linears + 2 * (length_ + 1) * h)    # both streams
  printf "| %s | | %.2f PFLOP a block shared, %.3f by each | | | |\n", name, shared / 1e15, alone / 1e15
  for (nodes = 1; nodes <= groups; nodes *= 2) {
    # to a machine: its part of the sums of groups, the totals, the quantized rows (a byte a weight)
    per = nodes == 1 ? 0 : groups * 4 * sums * (1 - 1 / nodes) / nodes + 8 * sums * (1 - 1 / nodes) + linears
    work = (shared / nodes + alone) / (tflops * 1e12)
    if (nodes == 1) one = work
    for (g = 0; g < 2; g++) wire[g] = per * 8 / ((g ? 100 : 10) * 1e9)
    printf "| | %d | %.1f | %.1f | %.1f (%.1f x) | %.1f (%.1f x) |\n", nodes, layers * work / 3600, per / 1e9,
           layers * (work + wire[0]) / 3600, one / (work + wire[0]), layers * (work + wire[1]) / 3600, one / (work + wire[1])
  }
}
BEGIN {
  print "| model | machines | hours of work | GB to each, a block | hours, 10 Gbit/s | hours, 100 Gbit/s |"
  print "| --- | --- | --- | --- | --- | --- |"
  model("70B", 80, 8192, 28672, 1024)
  model("405B", 126, 16384, 53248, 1024)
}'
