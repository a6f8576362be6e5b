#!/bin/sh
# nvcc.sh LOG NVCC ARGUMENTS: runs nvcc, whose words (ptxas -v has many) go to LOG and, when it fails, to the terminal.
log=$1
shift
"$@" > "$log.new" 2>&1 || { cat "$log.new" >&2; rm -f "$log.new"; exit 1; }
mv "$log.new" "$log"
