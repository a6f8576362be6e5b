#!/bin/sh
# Measures the kernels and writes the tables in docs/KERNELS.md, with the processor, the date and how busy the machine was. Every figure is the median
# over $RUNS processes (default 15): where a process's pages lie in memory decides about some 10 % of the speed, of each kernel in another way.
#   bench/kernels.sh [options of gptvq bench kernels]      default: --shapes 4096x4096,11008x4096 --rounds 15
# The second table, the share of the read bandwidth by width, is of $WIDTH_RUNS processes (default 3) over all known widths.
set -eu
cd "$(dirname "$0")/.."
gptvq=${GPTVQ:-build/release/gptvq}
[ -x "$gptvq" ] || { echo "kernels.sh: $gptvq is not built: make release" >&2; exit 2; }
[ $# -gt 0 ] || set -- --shapes 4096x4096,11008x4096 --rounds 15
runs=${RUNS:-15} width_runs=${WIDTH_RUNS:-3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
load=$(cut -d ' ' -f 1 /proc/loadavg)
[ "$(nice)" -ge 0 ] || load="$load (nice $(nice))"
for run in $(seq "$runs"); do "$gptvq" bench kernels --json "$@"; done >"$work/json"
for run in $(seq "$width_runs"); do "$gptvq" bench kernels --json --shapes all --tokens 1; done >"$work/widths.json"
cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
where="$cpu, family $(sed -n 's/^cpu family[[:space:]]*: //p' /proc/cpuinfo | head -n 1), model $(sed -n 's/^model[[:space:]]*: //p' /proc/cpuinfo | head -n 1)"

# what both tables share: the figures of every kernel and shape, as gptvq prints JSON, one member a line
collect='
  # median WHAT of kernel k: over the processes
  function median(what,   n, i, j, x) {
    n = split(all[what, k], sorted, " ")
    for (i = 2; i <= n; i++) {
      x = sorted[i] + 0
      for (j = i - 1; j > 0 && sorted[j] + 0 > x; j--) sorted[j + 1] = sorted[j]
      sorted[j + 1] = x
    }
    return sorted[int((n + 1) / 2)] + 0
  }
  function keep(what, value) { all[what, k] = all[what, k] " " value }
  /^ *"[a-z0-9_]*":/ {
    key = $1; gsub(/[":]/, "", key)
    value = substr($0, index($0, ":") + 2); gsub(/[",]/, "", value)
    v[key] = value
  }
  /^ *}/ && v["kernel"] != "" {
    shape = v["rows"] " x " v["cols"]
    k = shape SUBSEP v["kernel"]
    if (!(k in name)) { order[++count] = k; name[k] = v["kernel"]; of[k] = shape; bits[k] = v["bits"]; bytes[k] = v["bytes"]; weights[k] = v["rows"] * v["cols"] * v["tokens"] }
    keep("us", v["min_us"]); keep("us2", v["median_us"])
    keep("reads", v["bandwidth_gb_per_s"]); keep("reads2", v["bandwidth_median_gb_per_s"])
    keep("share", v["gb_per_s"] / v["bandwidth_gb_per_s"]); keep("share2", v["bandwidth_share_median"])
    keep("products", v["int8_gproducts_per_s"]); keep("int8", v["int8_share"])
    keep("int4", v["int4_ratio"]); keep("int42", v["int4_ratio_median"])
    v["kernel"] = ""
  }'
awk -v where="$where" -v date="$(date +%Y-%m-%d)" -v load="$load" -v runs="$runs" "$collect"'
  END {
    print where ", " v["threads"] " threads, level " v["cpu"] ", " runs " processes of " v["rounds"] " rounds, load before the run " load ", " date "; least times, and medians of the rounds in brackets, of both the medians over the processes."
    for (i = 1; i <= count; i++) {
      k = order[i]
      if (of[k] != of[order[i - 1]])
        printf "\n%s, memory reads %.1f (%.1f) GB/s, registers make %.0f · 10^9 int8 products/s:\n\n| kernel | bits | µs | GB/s | of bandwidth | 10^9 weights/s | of int8 products | / int4-g128 |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
               of[k], median("reads"), median("reads2"), median("products")
      us = median("us"); us2 = median("us2")
      printf "| %s | %.3f | %.0f (%.0f) | %.1f (%.1f) | %.0f %% (%.0f %%) | %.1f | %.0f %% | %.2f (%.2f) |\n", name[k], bits[k], us, us2, bytes[k] / us / 1000, bytes[k] / us2 / 1000,
             100 * median("share"), 100 * median("share2"), weights[k] / us / 1000, 100 * median("int8"), median("int4"), median("int42")
    }
  }' "$work/json" >"$work/table"
awk -v runs="$width_runs" "$collect"'
  END {
    print "Share of the read bandwidth, one token, medians; " runs " processes of " v["rounds"] " rounds of the same run."
    for (i = 1; i <= count && of[order[i]] == of[order[1]]; i++) { head = head " " name[order[i]] " |"; line = line " --- |" }
    printf "\n| rows x columns |%s\n| --- |%s", head, line
    for (i = 1; i <= count; i++) {
      k = order[i]
      if (of[k] != of[order[i - 1]]) printf "\n| %s |", of[k]
      printf " %.0f %% |", 100 * median("share2")
    }
    print ""
  }' "$work/widths.json" >"$work/widths"
[ -s "$work/table" ] && [ -s "$work/widths" ] || { echo "kernels.sh: no table came out" >&2; exit 1; }
bench/insert-table.sh docs/KERNELS.md kernels <"$work/table"
bench/insert-table.sh docs/KERNELS.md widths <"$work/widths"
cat "$work/table" "$work/widths"
