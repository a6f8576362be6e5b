#!/bin/sh
# check-spills.sh LOG TABLE: LOG is what ptxas -v said of the kernels, TABLE what each may keep in local memory, in lines
#   kernel architecture stack-bytes spill-store-bytes spill-load-bytes
# Kernels that have no line may have none. Exit 1 naming those that have more, 77 (skipped) without a log.
set -u
log=$1 table=$2
[ -s "$log" ] || { echo "check-spills.sh: $log is not there: no nvcc" >&2; exit 77; }
awk -v table="$table" '
BEGIN {
  while ((getline row < table) > 0) {
    if (row ~ /^#/ || row == "") continue
    split(row, t, " ")
    for (i = 3; i <= 5; i++) allowed[t[1], t[2], i] = t[i]
  }
}
/Compiling entry function/ { split($0, part, "\047"); kernel = part[2]; sub(/^gptvq_kernel_/, "", kernel); sm = part[4] }
/bytes stack frame/ {
  seen++
  split($0, n, /[^0-9]+/)
  first = n[1] == "" ? 2 : 1
  for (i = 3; i <= 5; i++) {
    has = n[first + i - 3]
    if (has + 0 > allowed[kernel, sm, i] + 0) bad = 1
    has_now[i] = has
  }
  if (bad) {
    printf "%s for %s: %d bytes of stack, %d stored and %d loaded in spills; allowed are %d, %d, %d\n", kernel, sm,
      has_now[3], has_now[4], has_now[5], allowed[kernel, sm, 3], allowed[kernel, sm, 4], allowed[kernel, sm, 5]
    failed = 1
  }
  bad = 0
}
END {
  if (seen == 0) { print "no kernels in the log"; failed = 1 }
  exit failed
}' "$log"
