#!/bin/sh
# Draws bench/speed/<cpu>.csv as bench/speed/<cpu>.svg: decoding speed over bits per value, medians and quartiles, gptvq's formats beside
# llama.cpp's, one panel per shape. Needs gnuplot (scripts/install-deps.sh --bench).
#   bench/plot-speed.sh [CSV …]      default: every bench/speed/*.csv
set -eu
cd "$(dirname "$0")/.."
command -v gnuplot >/dev/null || { echo "plot-speed.sh: gnuplot is missing: scripts/install-deps.sh --bench" >&2; exit 2; }
[ $# -gt 0 ] || set -- bench/speed/*.csv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# column NAME: its number in the header of $csv
column() {
  head -n 1 "$csv" | tr ',' '\n' | grep -nx "$1" | cut -d : -f 1
}

# labels COLOUR: names of the points plotted last, beside them, the first one's to its left
labels() {
  printf "'' every ::0::0 using 1:2:3 with labels right offset -0.9,0.2 font ',9' tc rgb '%s' notitle, " "$1"
  printf "'' every ::1 using 1:2:3 with labels left offset 0.9,0.2 font ',9' tc rgb '%s' notitle" "$1"
}

for csv; do
  [ -f "$csv" ] || { echo "plot-speed.sh: there is no $csv" >&2; exit 2; }
  speed=$(column decode_tokens_per_s_median) low=$(column decode_tokens_per_s_q1) high=$(column decode_tokens_per_s_q3)
  reads=$(column read_gb_per_s_median)
  [ -n "$speed" ] && [ -n "$low" ] && [ -n "$high" ] && [ -n "$reads" ] || { echo "plot-speed.sh: $csv is not a table of bench/peers.sh" >&2; exit 2; }
  shapes=$(awk -F, 'NR > 1 && !seen[$1]++ { print $1 }' "$csv")
  cpu=$(basename "$csv" .csv)
  {
    echo "set terminal svg size $(($(echo "$shapes" | wc -l) * 520 + 20)),420 font 'sans-serif,12' background '#ffffff'"
    echo "set output '$work/plot.svg'"
    echo "set multiplot layout 1,$(echo "$shapes" | wc -l)"
    echo "set datafile separator ','; set grid; set xrange [1.5:5]"
    echo "set xlabel 'bits per value'; set ylabel 'tokens per second, decoding'; set key top right"
    for shape in $shapes; do
      for side in gptvq llama; do
        awk -F, -v OFS=, -v shape="$shape" -v side=$side -v speed="$speed" -v low="$low" -v high="$high" '
          $1 == shape && (index($2, "llama.cpp") == 1) == (side == "llama") && $speed != "" {
            name = $2
            sub(/^(gptvq|llama\.cpp) /, "", name)
            gsub(/_/, "\\\\\\\\_", name)
            print $3, $speed, name, $low, $high
          }' "$csv" | sort -t , -k 1,1n >"$work/$shape-$side"
        [ -s "$work/$shape-$side" ] || echo '1,-1,,-1,-1' >"$work/$shape-$side" # outside the picture
      done
      title=$(awk -F, -v shape="$shape" -v reads="$reads" '$1 == shape { print $4 " threads, memory reads " $reads " GB/s"; exit }' "$csv")
      highest=$(awk -F, -v shape="$shape" -v high="$high" '$1 == shape && $high + 0 > most { most = $high } END { print 1.15 * most }' "$csv") # room for its label
      echo "set yrange [0:$highest]"
      echo "set title '$shape: $title' noenhanced"
      echo "plot '$work/$shape-gptvq' using 1:2:4:5 with yerrorbars pt 7 ps 1.2 lc rgb '#0060ad' title 'gptvq', \\"
      labels '#0060ad'; echo ", \\"
      echo "  '$work/$shape-llama' using 1:2:4:5 with yerrorbars pt 5 ps 1.2 lc rgb '#c04000' title 'llama.cpp', \\"
      labels '#c04000'; echo
    done
    echo "unset multiplot"
  } >"$work/plot.gp"
  gnuplot "$work/plot.gp"
  sed "s|<title>.*</title>|<title>$cpu</title>|" "$work/plot.svg" >"${csv%.csv}.svg"
  echo "${csv%.csv}.svg"
done
