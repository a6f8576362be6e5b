#!/bin/sh
# Measures the kernels and writes the table in docs/KERNELS.md, with the processor, the date and how busy the machine was.
#   bench/kernels.sh [options of gptvq bench kernels]      default: --shapes 2 --rounds 101
set -eu
cd "$(dirname "$0")/.."
gptvq=${GPTVQ:-build/release/gptvq}
[ -x "$gptvq" ] || { echo "kernels.sh: $gptvq is not built: make release" >&2; exit 2; }
[ $# -gt 0 ] || set -- --shapes 2 --rounds 101
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
load=$(cut -d ' ' -f 1 /proc/loadavg)
[ "$(nice)" -ge 0 ] || load="$load (nice $(nice))"
"$gptvq" bench kernels --json "$@" >"$work/json"
cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
where="$cpu, family $(sed -n 's/^cpu family[[:space:]]*: //p' /proc/cpuinfo | head -n 1), model $(sed -n 's/^model[[:space:]]*: //p' /proc/cpuinfo | head -n 1)"
awk -v where="$where" -v date="$(date +%Y-%m-%d)" -v load="$load" '
  # one member a line, as gptvq prints JSON
  /^ *"[a-z0-9_]*":/ {
    key = $1; gsub(/[":]/, "", key)
    value = substr($0, index($0, ":") + 2); gsub(/[",]/, "", value)
    v[key] = value
  }
  /^ *}/ && v["kernel"] != "" {
    if (!head) {
      print where ", " v["threads"] " threads, level " v["cpu"] ", " v["rounds"] " rounds, load before the run " load ", " date "; least times, and medians of the rounds in brackets."
      head = 1
    }
    if (v["rows"] " x " v["cols"] != shape) {
      shape = v["rows"] " x " v["cols"]
      printf "\n%s, memory reads %.1f (%.1f) GB/s:\n\n| kernel | bits | µs | GB/s | of bandwidth | 10^9 weights/s | / int4-g128 |\n| --- | --- | --- | --- | --- | --- | --- |\n",
             shape, v["bandwidth_gb_per_s"], v["bandwidth_median_gb_per_s"]
    }
    median = v["bytes"] / v["median_us"] / 1000 # GB/s
    printf "| %s | %.3f | %.0f (%.0f) | %.1f (%.1f) | %.0f %% (%.0f %%) | %.1f | %.2f (%.2f) |\n", v["kernel"], v["bits"], v["min_us"], v["median_us"],
           v["gb_per_s"], median, 100 * v["gb_per_s"] / v["bandwidth_gb_per_s"], 100 * median / v["bandwidth_median_gb_per_s"],
           v["gweights_per_s"], v["int4_ratio"], v["int4_ratio_median"]
    v["kernel"] = ""
  }' "$work/json" >"$work/table"
[ -s "$work/table" ] || { echo "kernels.sh: no table came out" >&2; exit 1; }
awk -v table="$work/table" '
  /<!-- kernels -->/ { print; while ((getline line <table) > 0) print line; skip = 1; next }
  /<!-- \/kernels -->/ { skip = 0 }
  !skip' docs/KERNELS.md >"$work/page"
cp "$work/page" docs/KERNELS.md
cat "$work/table"
