#!/bin/sh
# Runs one CLI test script in a fresh scratch folder that is removed afterwards.
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
sh -eu "$1"
