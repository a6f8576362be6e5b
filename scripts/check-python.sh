#!/bin/sh
# Builds the Python package and tests it in a virtual environment of its own, build/python: needs PyPI. No part of make check.
#   scripts/check-python.sh                 the package alone (numpy)
#   scripts/check-python.sh --transformers  also the plug-in for transformers (torch: large)
set -eu
cd "$(dirname "$0")/.."
venv=build/python/venv
[ -x $venv/bin/python ] || python3 -m venv $venv
case ${1:-} in --transformers) extra='[transformers]' ;; *) extra='' ;; esac
$venv/bin/python -m pip install -q ".$extra" pytest
cd build/python # not beside the sources: the installed package is tested
exec venv/bin/python -m pytest -q ../../tests/python
