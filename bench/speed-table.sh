#!/bin/sh
# Renews the tables of docs/KERNELS.md between their markers from the files that bench/peers.sh has written, one a processor.
#   bench/speed-table.sh
set -eu
cd "$(dirname "$0")/.."
for csv in bench/speed/*.csv; do
awk -F, -v cpu="$(basename "$csv" .csv)" '
  function short(x) { return x >= 100 ? sprintf("%.0f", x) : x }
  function range(what) { return v[what "_median"] == "" ? "" : short(v[what "_median"]) " (" short(v[what "_q1"]) "–" short(v[what "_q3"]) ")" }
  NR == 1 { for (i = 1; i <= NF; i++) name[i] = $i; next }
  { for (i = 1; i <= NF; i++) v[name[i]] = $i }
  NR == 2 {
    print "Processor " cpu "; medians of the rounds, quartiles in brackets; the columns *by least times* have the same figure from the least times of all rounds, which are not of one moment."
  }
  v["shape"] != shape {
    shape = v["shape"]
    print "\n" shape ", " v["threads"] " threads, " v["decode_rounds"] " rounds of decoding, " v["prompt_rounds"] " of prompts, memory reads " v["read_gb_per_s_median"] " GB/s (at best " v["read_gb_per_s"] "):\n"
    print "| format | bits | decoding, tokens/s | by least times | / Q4_0 | by least times | / Q2_K | by least times | prompt, tokens/s | / Q4_0 |"
    print "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
  }
  { print "| " v["format"] " | " v["bits_per_value"] " | " range("decode_tokens_per_s") " | " short(v["decode_tokens_per_s_least_times"]) " | " range("decode_vs_q4_0") " | " \
      v["decode_vs_q4_0_least_times"] " | " range("decode_vs_q2_k") " | " v["decode_vs_q2_k_least_times"] " | " range("prompt_tokens_per_s") " | " range("prompt_vs_q4_0") " |" }
  END { print "" }
' "$csv"
done | bench/insert-table.sh docs/KERNELS.md speed
