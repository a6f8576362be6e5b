# Shell helpers of the demo and the benchmarks (POSIX sh; sourced).

# json_get KEY: the first number or string under KEY in the JSON on standard input
json_get() {
  tr -d '\n' | sed -n "s/^[^\"]*\(.*\)\$/\1/; s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p"
}

# die MESSAGE
die() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}
