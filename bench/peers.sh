#!/bin/sh
# Speed beside llama.cpp: the same shapes, the same threads, in turns in one run; writes bench/speed/<cpu>.csv, the table of docs/KERNELS.md and, with
# gnuplot, a picture.
#
#   PYTHON=python3 bench/peers.sh [--shapes llama-2-7b,mistral-7b,stories] [--rounds N] [--prompt-rounds N] [--threads N] [--prompt N] [--tokens N]
#                                 [--formats PART,…] [--discard]      rows of shapes that are not measured stay in the table; --help names the shapes
#
# A real model beside GGUF files that llama.cpp makes of what gptvq export writes: bench/models/<cpu>-<model>.csv and a table of docs/RESULTS.md:
#
#   PYTHON=python3 SCRATCH=DIR bench/peers.sh --model MODEL --calib FILE --text FILE [--depths 0,1024,4096] [--thread-counts 1,2] [--rounds N]
#                                 [--prompt-rounds N] [--prompt N] [--tokens N] [--windows N] [--quantize "OPTIONS"] [--prepare]
#
# --prepare only makes the files (the default recipe on --calib takes its time) and the perplexities, which stay in $SCRATCH: the run that measures
# then takes a few minutes.
#
# $PYTHON (default python3) needs numpy, gguf and llama-cpp-python, the last one built for this machine:
#   CMAKE_ARGS=-DGGML_NATIVE=ON python3 -m pip install --no-binary llama-cpp-python llama-cpp-python gguf numpy
# Models of random weights, some GB per shape (--discard removes them after each one), and of a real one, about its own size, go to $SCRATCH (default: a
# folder that is removed afterwards).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
gptvq=${GPTVQ:-$here/../build/release/gptvq}
[ -x "$gptvq" ] || { echo "peers.sh: $gptvq is not built: make release" >&2; exit 2; }
"$python" -c 'import numpy, gguf, llama_cpp' 2> /dev/null || {
  echo "peers.sh: $python lacks numpy, gguf or llama-cpp-python; see the head of bench/peers.sh" >&2
  exit 2
}
cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
family=$(sed -n 's/^cpu family[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
number=$(sed -n 's/^model[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
name=$(printf '%s' "${CPU_NAME:-$cpu $family-$number}" | tr 'A-Z' 'a-z' | tr -cs 'a-z0-9.' '-' | sed 's/^-//; s/-$//')
[ -n "${SCRATCH:-}" ] || { SCRATCH=$(mktemp -d); trap 'rm -rf "$SCRATCH"' EXIT; }
if [ "${1:-}" = --model ]; then
  csv=$here/models/$name-$(basename "${2:?usage: bench/peers.sh --model MODEL}").csv
  mkdir -p "$here/models"
  "$python" "$here/peers_model.py" --gptvq "$gptvq" --scratch "$SCRATCH" --out "$csv" "$@"
  case " $* " in *" --prepare "*) exit 0 ;; esac
  echo "$csv"
  "$here/model-table.sh" "$(basename "$2")"
  exit
fi
cd "$here/.."
mkdir -p bench/speed
"$python" bench/peers.py --gptvq "$gptvq" --scratch "$SCRATCH" --out "bench/speed/$name.csv" "$@"
echo "bench/speed/$name.csv"
bench/speed-table.sh
if command -v gnuplot >/dev/null; then bench/plot-speed.sh "bench/speed/$name.csv"
else echo "peers.sh: no picture: gnuplot is missing (scripts/install-deps.sh --bench)" >&2
fi
