#!/bin/sh
# Builds the Python package and tests it in a virtual environment of its own, build/python: needs PyPI. No part of make check.
set -eu
cd "$(dirname "$0")/.."
venv=build/python/venv
[ -x $venv/bin/python ] || python3 -m venv $venv
$venv/bin/python -m pip install -q . pytest
cd build/python # not beside the sources: the installed package is tested
exec venv/bin/python -m pytest -q ../../tests/python
