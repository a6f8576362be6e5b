#!/bin/sh
# gptvq where its users are: clients of others against a model, and what they say beside our own figures. Writes bench/ecosystem.csv and prints it as a
# table: client, what was run, our figure, the peer's figure.
#
#   PYTHON=python3 bench/ecosystem.sh MODEL [--task FILE.jsonl] [--peer FILE.gguf,…] [--clients N] [--tokens N] [--parts NAME,…]
#
# MODEL: a chat model's folder, original or packed. --task: questions (gptvq eval --task; default: the fixture of the tests, which is about the bundled
# model). --peer: GGUF files of the same model for llama.cpp, whose server takes turns with ours. --parts: some of bench/ecosystem/*.py alone, whose rows take
# the place of their former ones: chat (gptvq chat beside transformers), server (the openai client, lm_eval), page (the built-in page in headless
# Chromium), load (--clients at once), binding (the Python package), hub (a hub's cache, transformers, the report), ggml (GGUF files, out and in).
#
# $PYTHON needs openai and lm_eval (pip install openai 'lm_eval[api]'), torch and transformers, llama-cpp-python[server]; what is missing is said and left out.
# Chromium is Debian's package. Nothing is fetched. bench/update-tables.sh puts the table into docs/RESULTS.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
gptvq=${GPTVQ:-$here/../build/release/gptvq}
model=${1:?usage: bench/ecosystem.sh MODEL [options]}
shift
[ -x "$gptvq" ] || { echo "ecosystem.sh: $gptvq is not built: make release" >&2; exit 2; }
all="chat server page load binding hub ggml"
parts=""
for argument in "$@"; do
  [ "$parts" != next ] || parts=$argument
  [ "$argument" != --parts ] || parts=next
done
parts=$(echo "${parts:-$all}" | tr , ' ')
out=$here/ecosystem.csv
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/rows"
failed=0
for part in $parts; do
  [ -e "$here/ecosystem/$part.py" ] || { echo "ecosystem.sh: there is no part $part" >&2; exit 2; }
  if OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HOME="$scratch/hf" TOKENIZERS_PARALLELISM=false TQDM_DISABLE=1 \
    "$python" "$here/ecosystem/$part.py" --gptvq "$gptvq" --model "$model" --scratch "$scratch" "$@" > "$scratch/rows/$part"; then
    echo "ecosystem.sh: $part passes" >&2
  else
    failed=1
    echo "ecosystem.sh: $part FAILED" >&2
  fi
done
{
  echo "part,client,what,ours,peer"
  for part in $all; do
    if [ -e "$scratch/rows/$part" ]; then sed "s/^/$part,/" "$scratch/rows/$part"
    elif [ -e "$out" ]; then grep "^$part," "$out" || true
    fi
  done
} > "$scratch/csv"
cp "$scratch/csv" "$out"
"$here/ecosystem-table.sh"
exit $failed
