#!/bin/sh
# Renews the tables of a real model in docs/RESULTS.md between their markers from the files that bench/peers.sh --model has written, one a processor.
#   bench/model-table.sh MODEL
set -eu
here=$(cd "$(dirname "$0")" && pwd)
model=${1:?usage: bench/model-table.sh MODEL}
for csv in "$here"/models/*-"$model".csv; do
name=$(basename "$csv" "-$model.csv")
awk -v processor="$name" -F, '
  function range(task, what) { return v[task, what] " (" v[task, what "_q1"] "–" v[task, what "_q3"] ")" }
  NR == 1 { next }
  {
    task = $7 " " $8; k = $2 SUBSEP $6 SUBSEP task
    if (NR == 2) model = $1
    if (!seen["t" task]++) tasks[++ntasks] = task
    if (!seen["f" $2]++) { formats[++nformats] = $2; bits[$2] = $3; mb[$2] = $4; perplexity[$2] = $5 }
    if (!seen["n" $6]++) threads[++nthreads] = $6
    v[k, "speed"] = $9; v[k, "speed_q1"] = $10; v[k, "speed_q3"] = $11; v[k, "ratio"] = $12; v[k, "ratio_q1"] = $13; v[k, "ratio_q3"] = $14
    if (!seen["r" task]++) rounds = rounds (rounds == "" ? "" : ", ") $15 " of " task
    reads = $16; date = $17
  }
  END {
    print "#### " processor ", " date "\n"
    print model ": tokens per second, medians of the rounds, quartiles in brackets; memory reads " reads " GB/s. Rounds: " rounds "."
    for (n = 1; n <= nthreads; n++) {
      print "\n" threads[n] (threads[n] == 1 ? " thread:" : " threads:") "\n"
      head = "| format | bits | MB | perplexity |"; line = "| --- | --- | --- | --- |"
      for (t = 1; t <= ntasks; t++) {
        split(tasks[t], what, " ")
        head = head (what[1] == "prompt" ? " prompt of " what[2] " |" : " decoding at " what[2] " |") " / Q4_0 |"; line = line " --- | --- |"
      }
      print head "\n" line
      for (f = 1; f <= nformats; f++) {
        row = "| " formats[f] " | " bits[formats[f]] " | " mb[formats[f]] " | " perplexity[formats[f]] " |"
        for (t = 1; t <= ntasks; t++) { k = formats[f] SUBSEP threads[n] SUBSEP tasks[t]; row = row " " range(k, "speed") " | " range(k, "ratio") " |" }
        print row
      }
    }
    print ""
  }' "$csv"
done | "$here/insert-table.sh" "$here/../docs/RESULTS.md" model
