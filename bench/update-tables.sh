#!/bin/sh
# Renews the tables between the markers of README.md and docs/RESULTS.md from bench/*.csv: mean over the seeds, ± half their range.
set -eu
cd "$(dirname "$0")/.."

# means CSV: setting, runs, then the means of bits, perplexity, excess, half its range, KL, half its range, same top token, excess_2nd, CPU seconds
means() {
  awk -F, '
    /^#/ || $1 == "setting" { next }
    { s = $1
      if (!(s in n)) { order[++rows] = s; low[s] = high[s] = $5; klow[s] = khigh[s] = $6 }
      n[s]++; bits[s] += $3; ppl[s] += $4; excess[s] += $5; kl[s] += $6; top[s] += $8; second[s] += $10; cpu[s] += $12
      if ($5 + 0 < low[s]) low[s] = $5
      if ($5 + 0 > high[s]) high[s] = $5
      if ($6 + 0 < klow[s]) klow[s] = $6
      if ($6 + 0 > khigh[s]) khigh[s] = $6 }
    END { for (i = 1; i <= rows; i++) { s = order[i]; c = n[s]
      printf "%s,%d,%.4f,%.4f,%.5f,%.5f,%.5f,%.5f,%.4f,%.5f,%.1f\n", s, c, bits[s] / c, ppl[s] / c, excess[s] / c, (high[s] - low[s]) / 2,
        kl[s] / c, (khigh[s] - klow[s]) / 2, top[s] / c, second[s] / c, cpu[s] / c } }' "$1"
}

for csv in bench/quality.csv bench/paper.csv bench/halves.csv; do
  [ ! -e $csv ] || grep -q '^setting,.*,excess_2nd,layer_error,cpu_seconds,' $csv || { echo "$csv has other columns than bench/quality.sh writes now: run that first" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
means bench/quality.csv > "$work/means"

grep -v ':' "$work/means" | awk -F, '
  BEGIN {
    print "| method and nominal size | exact bits per value | perplexity | excess | KL divergence | same top token | seeds |"
    print "| --- | --- | --- | --- | --- | --- | --- |" }
  { printf "| %s | %.4f | %.3f | %.2f %%%s | %.4f | %.1f %% | %d |\n", $1, $3, $4, 100 * $5, ($2 > 1 ? sprintf(" ± %.2f", 100 * $6) : ""), $7, 100 * $9, $2 }' |
  bench/insert-table.sh README.md quality

# every ingredient beside the same setting without it
awk -F, '
  function spread(n, value, format) { return n > 1 ? sprintf(" ± " format, value) : "" }
  BEGIN {
    print "| setting | bits | excess | change | KL divergence | change | CPU seconds | seeds |"
    print "| --- | --- | --- | --- | --- | --- | --- | --- |" }
  { line[$1] = $0; order[++n] = $1 }
  END {
    for (i = 1; i <= n; i++) {
      s = order[i]; at = index(s, ": ")
      if (at == 0) continue
      base = substr(s, 1, at - 1)
      split(line[base], b, ","); split(line[s], a, ",")
      if (base != last) printf "| **%s** | %.4f | %.2f %%%s | | %.4f%s | | %.0f | %d |\n", base, b[3], 100 * b[5], spread(b[2], 100 * b[6], "%.2f"),
          b[7], spread(b[2], b[8], "%.4f"), b[11], b[2]
      last = base
      printf "| %s | %.4f | %.2f %%%s | %+.2f | %.4f%s | %+.1f %% | %.0f | %d |\n", substr(s, at + 2), a[3], 100 * a[5], spread(a[2], 100 * a[6], "%.2f"),
        100 * (a[5] - b[5]), a[7], spread(a[2], a[8], "%.4f"), 100 * (a[7] / b[7] - 1), a[11], a[2] } }' "$work/means" | bench/insert-table.sh docs/RESULTS.md ingredients

# beside the code of the authors
grep '^authors' bench/others.csv | awk -F, -v means="$work/means" '
  function spread(s) { return runs[s] > 1 ? sprintf(" ± %.2f", 100 * range[s]) : "" }
  BEGIN {
    while ((getline line < means) > 0) { split(line, a, ","); runs[a[1]] = a[2]; excess[a[1]] = a[5]; range[a[1]] = a[6]; bits[a[1]] = a[3] }
    print "| setting | their bits | their excess | our bits | our excess | ratio | with fine-tuning | ratio |"
    print "| --- | --- | --- | --- | --- | --- | --- | --- |" }
  { f = $5 ": fine-tuning"
    printf "| %s | %.4f | %.2f %% | %.4f | %.2f %%%s | %.0f %% |", $2, $3, 100 * $4, bits[$5], 100 * excess[$5], spread($5), 100 * excess[$5] / $4
    if (f in excess) printf " %.2f %%%s | %.0f %% |\n", 100 * excess[f], spread(f), 100 * excess[f] / $4
    else print " | |" }' | bench/insert-table.sh docs/RESULTS.md authors

# beside the types of llama.cpp, by size
{
  grep '^llama' bench/others.csv | awk -F, '{ printf "%.4f| | %.2f %% | llama.cpp %s |\n", $3, 100 * $4, $2 }'
  awk -F, '$1 ~ /^gptvq/ && ($1 !~ /:/ || $1 ~ /: (allocation|fine-tuning|allocation and fine-tuning)$/) { printf "%.4f| %.2f %% | | %s |\n", $3, 100 * $10, $1 }' "$work/means"
} | sort -n | awk '
  BEGIN { print "| bits | excess, gptvq | excess, llama.cpp | |"; print "| --- | --- | --- | --- |" }
  { print "| " $0 }' | bench/insert-table.sh docs/RESULTS.md llama

# the published algorithm and its ablations
[ ! -e bench/paper.csv ] || means bench/paper.csv | awk -F, '
  BEGIN { print "| setting | bits | perplexity | excess | KL divergence | CPU seconds | seeds |"; print "| --- | --- | --- | --- | --- | --- | --- |" }
  { printf "| %s | %.4f | %.3f | %.2f %%%s | %.4f | %.0f | %d |\n", $1, $3, $4, 100 * $5, ($2 > 1 ? sprintf(" ± %.2f", 100 * $6) : ""), $7, $11, $2 }' |
  bench/insert-table.sh docs/RESULTS.md paper

# texts swapped
[ ! -e bench/halves.csv ] || means bench/halves.csv | awk -F, '
  BEGIN { print "| setting | bits | excess, mean of both directions | KL divergence |"; print "| --- | --- | --- | --- |" }
  $1 != "bf16" { printf "| %s | %.4f | %.2f %% ± %.2f | %.4f ± %.4f |\n", $1, $3, 100 * $5, 100 * $6, $7, $8 }' | bench/insert-table.sh docs/RESULTS.md halves

# kinds of text
kinds() { # CSV NAME: divergences
  [ ! -e "$1" ] || grep -v '^#' "$1" | awk -F, '
    NR == 1 { for (i = 1; $i != "cpu_seconds"; i++) head = head "| " (i == 2 ? "bits" : $i) " "; last = i - 1; print head "|"; gsub(/[^|]+/, " --- ", head); print head "|" }
    NR > 1 { row = ""; for (i = 1; i <= last; i++) row = row "| " (i == 1 ? $i : sprintf("%.3f", $i)) " "; print row "|" }' | bench/insert-table.sh docs/RESULTS.md "$2"
}
kinds bench/robust.csv robust
kinds bench/ingredients.csv real-ingredients

# the default on a real model: divergences with the excess of perplexity in brackets, and files; rows of before have neither the one nor the other
[ ! -e bench/targets.csv ] || grep -v '^#' bench/targets.csv | awk -F, '
  NR == 1 {
    for (i = 1; i <= NF; i++) column[$i] = i
    for (i = 3; $i != "mean"; i++) { kind[++kinds] = $i; head = head "| " $i " "; line = line "| --- " }
    print "| setting | bits | MB " head "| CPU seconds |"; print "| --- | --- | --- " line "| --- |" }
  NR > 1 {
    row = ""
    for (i = 1; i <= kinds; i++) { e = column["excess_" kind[i]]; row = row sprintf("| %.3f%s ", $(i + 2), e && $e != "" ? sprintf(" (%.1f %%)", 100 * $e) : "") }
    b = column["bytes"]
    printf "| %s | %.3f | %s %s| %s |\n", $1, $2, b && $b != "" ? sprintf("%.1f", $b / 1e6) : "", row, $(column["cpu_seconds"]) }' |
  bench/insert-table.sh docs/RESULTS.md targets

# and on the example
grep '^gptvq-trellis-[0-9.]*,' "$work/means" | awk -F, '
  NR == 1 { print "| setting | bits | KL divergence | excess | seeds |"; print "| --- | --- | --- | --- | --- |" }
  { printf "| %s | %.4f | %.4f%s | %.2f %%%s | %d |\n", $1, $3, $7, ($2 > 1 ? sprintf(" ± %.4f", $8) : ""), 100 * $5, ($2 > 1 ? sprintf(" ± %.2f", 100 * $6) : ""), $2 }' |
  bench/insert-table.sh docs/RESULTS.md targets-example

# clients and peers
[ ! -e bench/ecosystem.csv ] || bench/ecosystem-table.sh | bench/insert-table.sh docs/RESULTS.md ecosystem
