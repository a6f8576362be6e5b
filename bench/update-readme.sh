#!/bin/sh
# Renews the table between the "quality" markers of README.md from bench/quality.csv (mean over the seeds).
set -eu
cd "$(dirname "$0")/.."
table=$(awk -F, '
  /^#/ || $1 == "setting" { next }
  { if (!($1 in n)) order[++rows] = $1; n[$1]++; bits[$1] += $3; ppl[$1] += $4; excess[$1] += $5; kl[$1] += $6; top[$1] += $8 }
  END {
    print "| method and nominal size | exact bits per value | perplexity | excess | KL divergence | same top token |"
    print "| --- | --- | --- | --- | --- | --- |"
    for (i = 1; i <= rows; i++) { s = order[i]; c = n[s]
      printf "| %s | %.4f | %.3f | %.2f %% | %.4f | %.1f %% |\n", s, bits[s] / c, ppl[s] / c, 100 * excess[s] / c, kl[s] / c, 100 * top[s] / c }
  }' bench/quality.csv)
awk -v table="$table" '
  /<!-- quality begin/ { print; print table; skip = 1; next }
  /<!-- quality end/ { skip = 0 }
  !skip { print }' README.md > README.md.new
mv README.md.new README.md
