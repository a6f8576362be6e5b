#!/bin/sh
# The table of what bench/files.sh has written, on stdout, and a picture of it, bench/files.svg, where there is gnuplot.
#   bench/files-table.sh [CSV]
set -eu
cd "$(dirname "$0")/.."
csv=${1:-bench/files.csv}
awk -F, '
  NR == 1 { print "| file | MB | bits per linear weight | excess, KL: prose | code | dialogue |\n| --- | --- | --- | --- | --- | --- |"; next }
  {
    name = $1 ~ /^llama/ ? $1 : "**" $1 "**"
    printf "| %s | %.1f | %.3f | %.1f %%, %.3f | %.1f %%, %.3f | %.1f %%, %.3f |\n", name, $2 / 1e6, $3, 100 * $4, $5, 100 * $6, $7, 100 * $8, $9
  }' "$csv"
command -v gnuplot > /dev/null || { echo "files-table.sh: no picture: gnuplot is missing (scripts/install-deps.sh --bench)" >&2; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
grep '^llama' "$csv" | sed 's/^llama\.cpp //' > "$work/llama"
grep '^gptvq' "$csv" | sed 's/^gptvq //' > "$work/gptvq"
gnuplot <<PLOT
set terminal svg size 760,460 font 'sans-serif,12' background '#ffffff'
set output 'bench/files.svg'
set datafile separator ','
set logscale y
set xlabel 'whole file, MB'
set ylabel 'KL divergence from the original, prose (nats)'
set grid lc rgb '#dddddd'
set key top right
plot '$work/gptvq' using (\$2/1e6):5 with linespoints pt 7 lc rgb '#1f5fa8' title 'gptvq', \
     '' using (\$2/1e6):5:1 with labels left offset 0.8,0.5 font ',10' tc rgb '#1f5fa8' notitle, \
     '$work/llama' using (\$2/1e6):5 with linespoints pt 5 lc rgb '#c0552a' title 'llama.cpp, importance matrix of the same text', \
     '' using (\$2/1e6):5:1 with labels left offset 0.8,0.5 font ',10' tc rgb '#c0552a' notitle
PLOT
