#!/bin/sh
# Writes the table of docs/KERNELS.md of what AVX2 takes for one token and four, by width: the formats beside each other on one core, from memory.
# Every figure is the least time over $RUNS processes (default 5) of 9 rounds, in which all formats take turns.
#   bench/avx2.sh
set -eu
cd "$(dirname "$0")/.."
gptvq=${GPTVQ:-build/release/gptvq}
[ -x "$gptvq" ] || { echo "avx2.sh: $gptvq is not built: make release" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for run in $(seq "${RUNS:-5}"); do
  "$gptvq" bench kernels --json --shapes 576,896,1536,2048,4096,18944 --formats 2d-2.125,4d-2.25,trellis --tokens 4 --threads 1 --memory 64 --cpu avx2
done > "$work/json"
awk -v where="$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1), family $(sed -n 's/^cpu family[[:space:]]*: //p' /proc/cpuinfo | head -n 1)" \
  -v date="$(date +%Y-%m-%d)" -v load="$(cut -d ' ' -f 1 /proc/loadavg)" '
  /^ *"[a-z0-9_]*":/ { key = $1; gsub(/[":]/, "", key); value = substr($0, index($0, ":") + 2); gsub(/[",]/, "", value); v[key] = value }
  /^ *}/ && v["kernel"] != "" {
    cols = v["cols"]
    if (!(cols in seen)) { seen[cols] = 1; column[++columns] = cols }
    k = v["kernel"] SUBSEP cols
    ns = 1000 * 256 * v["min_us"] / (v["rows"] * cols * v["tokens"])
    if (!(k in least) || ns < least[k]) least[k] = ns
    v["kernel"] = ""
  }
  END {
    if (columns == 0) exit 1
    print where ", one core, level avx2, load " load ", " date "; ns per 256 weights and token, in brackets with four tokens; the weights come from memory:\n"
    head = "| columns |"; line = "| --- |"
    for (i = 1; i <= columns; i++) { head = head " " column[i] " |"; line = line " --- |" }
    print head "\n" line
    count = split("int4-g128;int4, 128 columns per scale;vq-2d-2.125;2-D, k = 16;vq-4d-2.25;4-D, k = 256;trellis-2;trellis, 2 bits;trellis-3;trellis, 3 bits;trellis-4;trellis, 4 bits", name, ";")
    for (f = 1; f < count; f += 2) {
      row = "| " name[f + 1] " |"
      for (i = 1; i <= columns; i++) row = row sprintf(" %.1f (%.1f) |", least[name[f], column[i]], least[name[f] " x4", column[i]])
      print row
    }
  }' "$work/json" > "$work/table"
bench/insert-table.sh docs/KERNELS.md avx2 < "$work/table"
cat "$work/table"
