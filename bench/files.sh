#!/bin/sh
# Loss against the size of the whole file, beside llama.cpp's mixes with an importance matrix from the same text: writes bench/files.csv, prints it as
# a table and, with gnuplot, draws bench/files.svg.
#
#   PYTHON=python3 SCRATCH=DIR bench/files.sh MODEL CALIB PROSE OTHER-TEXTS
#
# CALIB, PROSE: texts of one kind (40 windows of PROSE are judged); OTHER-TEXTS: the folder that bench/texts.py makes, of which code and dialogue are judged
# (16 windows each). gptvq's files are those of bench/files.settings, with $QUANTIZE (default "--calib-samples 32 --calib-length 1024") added. Rows that are in
# the table stay. $PYTHON needs gguf, llama-cpp-python, numpy, torch, transformers. $SCRATCH: a folder for the files (default: removed afterwards).
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
[ $# -eq 4 ] || die "usage: bench/files.sh MODEL CALIB PROSE OTHER-TEXTS"
python=${PYTHON:-python3} gptvq=${GPTVQ:-build/release/gptvq} csv=${FILES_OUT:-bench/files.csv}
[ -x "$gptvq" ] || die "build first: make release"
[ -n "${SCRATCH:-}" ] || { SCRATCH=$(mktemp -d); trap 'rm -rf "$SCRATCH"' EXIT; }
mkdir -p "$SCRATCH"
sed "/^[^#]/s/\$/ ${QUANTIZE:---calib-samples 32 --calib-length 1024}/" bench/files.settings > "$SCRATCH/settings"
"$python" bench/files.py --gptvq "$gptvq" --scratch "$SCRATCH" --out "$csv" --model "$1" --calib "$2" --settings "$SCRATCH/settings" \
  --text "prose=$3:40" --text "code=$4/code.txt:16" --text "dialogue=$4/dialogue.txt:16"
bench/files-table.sh "$csv"
