#!/bin/sh
# Runs the published algorithm (--recipe paper) and its ablations on a model and shows the published figures beside its own.
#   bench/reproduce-paper.sh [MODEL CALIB EVAL]     for example: Llama-2-7b/ wiki.train.txt wiki.test.txt
# QUALITY_CTX is the context (512 for the bundled model, 2048 in the paper). Writes bench/paper.csv, or paper-MODEL.csv for others.
set -eu
cd "$(dirname "$0")/.."
name=$(basename "${1:-examples/stories-4m}")
out=bench/paper.csv
[ "$name" = stories-4m ] || out=bench/paper-$name.csv
QUALITY_SETTINGS=${QUALITY_SETTINGS:-bench/paper.settings} QUALITY_OUT=$out bench/quality.sh "$@"
awk -F, -v model="$name" '
  /^#/ || $1 == "setting" || $1 == "model" { next }
  FNR == NR { if (index(tolower(model), tolower($1)) == 1) expected[$2] = $3; next }
  { if (!($1 in sum)) order[++n] = $1; sum[$1] += $4; kl[$1] += $6; bits[$1] = $3; runs[$1]++ }
  END {
    printf "%-24s %10s %12s %10s %6s %12s\n", "setting", "bits", "perplexity", "KL", "seeds", "published"
    for (i = 1; i <= n; i++) { s = order[i]
      printf "%-24s %10.4f %12.4f %10.5f %6d %12s\n", s, bits[s], sum[s] / runs[s], kl[s] / runs[s], runs[s], s in expected ? expected[s] : "-" }
  }' bench/paper-expected.csv "$out"
