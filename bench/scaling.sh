#!/bin/sh
# Quantizing with several processes or threads beside one, in turns on this machine: wall and CPU seconds, bytes sent, and whether the outputs are the same bytes.
# Writes bench/scaling.csv (or --out FILE).
#
#   bench/scaling.sh --model MODEL --calib FILE [--ranks "1 2"] [--threads "1"] [--rounds 3] [--blocks N] [--out FILE] [-- QUANTIZE OPTIONS…]
#
# --blocks N: a copy of the model with its first N blocks, for a quick look. Each process takes --threads threads; several numbers of them (--ranks 1 --threads "1 2"), with
# each number of ranks, are several runs. speedup: beside the first of all. What stands behind -- goes to all runs
# (default: the default recipe, --dim 2 --bits 2.25 --nominal). Needs mpirun and a gptvq that is built with MPI ($GPTVQ, default build/release/gptvq).
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/scripts/lib.sh"
model='' calib='' ranks="1 2" threads=1 rounds=3 blocks='' out=$here/bench/scaling.csv
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --) shift; break ;;
    --model | --calib | --ranks | --threads | --rounds | --blocks | --out) [ $# -ge 2 ] || usage; eval "${1#--}=\$2"; shift 2 ;;
    *) usage ;;
  esac
done
[ -d "$model" ] && [ -f "$calib" ] || usage
gptvq=${GPTVQ:-$here/build/release/gptvq}
"$gptvq" --version | grep -q 'Open MPI' || die "$gptvq is built without MPI: scripts/install-deps.sh --mpi, then build again"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
name=$(basename "$model")
if [ -n "$blocks" ]; then
  "${PYTHON:-python3}" "$here/bench/first_blocks.py" "$model" "$scratch/model" "$blocks"
  model=$scratch/model name=$name-$blocks
fi
[ $# -gt 0 ] || set -- --dim 2 --bits 2.25 --nominal
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

# run RANKS THREADS: one run, its report in $scratch/RANKS-THREADS.json, its output compared with that of the first
run() {
  rm -rf "$scratch/out"
  count=$1 each=$2 this=$scratch/$1-$2
  shift 2
  if [ "$count" = 1 ]; then launch=""; else launch="mpirun -q -n $count"; fi
  $launch "$gptvq" quantize "$model" -o "$scratch/out" --calib "$calib" --threads "$each" --quiet --json "$@" > "$scratch/json" 2> "$scratch/err" ||
    { cat "$scratch/err" >&2; die "a run of $count processes failed"; }
  if [ ! -d "$scratch/first" ]; then mv "$scratch/out" "$scratch/first"
  else diff -r -x gptvq.json "$scratch/first" "$scratch/out" > /dev/null || die "$count processes write other bytes than the first run"
  fi
  seconds=$(json_get seconds < "$scratch/json")
  best=$(cat "$this.best" 2> /dev/null || echo 1e300)
  awk -v a="$seconds" -v b="$best" 'BEGIN {exit !(a + 0 < b + 0)}' || return 0
  echo "$seconds" > "$this.best"
  cp "$scratch/json" "$this.json"
}
for round in $(seq 1 "$rounds"); do
  for t in $threads; do
    for n in $ranks; do run "$n" "$t" "$@"; done
  done
done
one=''
{
  echo "model,options,ranks,threads,seconds,speedup,cpu_seconds_rank0,sent_bytes,sent_bytes_block,runs"
  for t in $threads; do
    for n in $ranks; do
      this=$scratch/$n-$t
      seconds=$(cat "$this.best")
      one=${one:-$seconds}
      speedup=$(awk -v one="$one" -v s="$seconds" 'BEGIN {printf "%.2f", one / s}')
      echo "$name,$*,$n,$t,$(printf %.1f "$seconds"),$speedup,$(printf %.1f "$(json_get cpu_seconds < "$this.json")"),$(json_get sent_bytes < "$this.json"),$(json_get sent_bytes_block < "$this.json"),$rounds"
    done
  done
} > "$scratch/csv"
mv "$scratch/csv" "$out"
cat "$out"
