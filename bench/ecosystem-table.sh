#!/bin/sh
# bench/ecosystem.csv as a table.
set -eu
awk -F, '{ print "| " $2 " | " $3 " | " $4 " | " $5 " |" } NR == 1 { print "| --- | --- | --- | --- |" }' "$(dirname "$0")/ecosystem.csv"
