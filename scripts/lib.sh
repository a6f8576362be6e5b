# Shell helpers of the demo and the benchmarks (POSIX sh; sourced).

# json_get KEY: the first number or string under KEY in the JSON on standard input
json_get() {
  grep -o "\"$1\": *\"\{0,1\}[^\",}]*" | sed -n '1s/^[^:]*: *"\{0,1\}//p'
}

# die MESSAGE
die() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}
