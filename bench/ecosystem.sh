#!/bin/sh
# gptvq where its users are: clients of others against a model, and what they say beside our own figures. Writes bench/ecosystem.csv and prints it as a
# table: client, what was run, our figure, the peer's figure.
#
#   PYTHON=python3 bench/ecosystem.sh MODEL [--task FILE.jsonl] [--peer FILE.gguf,…] [--clients N] [--tokens N] [--parts NAME,…]
#
# MODEL: a chat model's folder, original or packed. --task: questions (gptvq eval --task; default: the fixture of the tests, which is about the bundled
# model). --peer: GGUF files of the same shape for llama.cpp's server, in turns with ours. --parts: some of bench/ecosystem/*.py alone (server: the openai
# client, lm_eval, the load; page: the built-in page in headless Chromium; hub: a hub's cache, transformers, llama.cpp by GGUF, the report).
#
# $PYTHON needs openai and lm_eval (pip install openai 'lm_eval[api]'), torch and transformers, llama-cpp-python[server]; what is missing is said and left out.
# Chromium is Debian's package. Nothing is fetched.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
gptvq=${GPTVQ:-$here/../build/release/gptvq}
model=${1:?usage: bench/ecosystem.sh MODEL [options]}
shift
[ -x "$gptvq" ] || { echo "ecosystem.sh: $gptvq is not built: make release" >&2; exit 2; }
parts=""
for argument in "$@"; do
  [ "$parts" != next ] || parts=$argument
  [ "$argument" != --parts ] || parts=next
done
[ -n "$parts" ] || parts=$(cd "$here/ecosystem" && ls ./*.py | sed 's,^\./,,; s,\.py$,,' | grep -v '^common$' | paste -sd ,)
out=$here/ecosystem.csv
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo "client,what,ours,peer" > "$scratch/rows"
failed=0
for part in $(echo "$parts" | tr , ' '); do
  OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HOME="$scratch/hf" TOKENIZERS_PARALLELISM=false \
    "$python" "$here/ecosystem/$part.py" --gptvq "$gptvq" --model "$model" --scratch "$scratch" "$@" >> "$scratch/rows" || failed=1
done
cp "$scratch/rows" "$out"
awk -F, '{print "| " $1 " | " $2 " | " $3 " | " $4 " |"} NR == 1 {print "| --- | --- | --- | --- |"}' "$out"
exit $failed
