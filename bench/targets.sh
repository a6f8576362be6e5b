#!/bin/sh
# What the default is worth on a real model, on text like the calibration's and on kinds that it did not see: writes bench/targets.csv and the table of
# docs/RESULTS.md, "Targets".
#   bench/targets.sh MODEL TEXTS [SETTING ...]      as bench/robust.sh, with the settings of bench/targets.settings; 40 windows of 512 tokens
set -eu
cd "$(dirname "$0")/.."
ROBUST_SETTINGS=bench/targets.settings ROBUST_OUT=${ROBUST_OUT:-bench/targets.csv} ROBUST_KINDS=${ROBUST_KINDS:-"prose stories code"} \
  ROBUST_WINDOWS=${ROBUST_WINDOWS:-40} bench/robust.sh "$@"
bench/update-tables.sh
