#!/bin/sh
# The house has one direction: a folder may include only itself and what its row names; the CLI only the public headers and those that it ends with here; every
# symbol that the libraries export begins with gptvq_.
set -u
build=${1:-build/release}
cd "$(dirname "$0")/.." || exit 1
failed=0

# folder: folders that it may include, lowest first. ref/, x86/, arm/ and multi/ belong to the folder around them.
rules="
base:
linalg: base
linalg/solve: base linalg
format: base
kernels: base format
gguf: base
checkpoint: base format kernels gguf
text: base gguf
text/template: base gguf text
model/arch: base checkpoint
model/layer: base linalg kernels model/arch
model: base linalg format kernels checkpoint model/arch model/layer
eval: base linalg kernels checkpoint text model/layer model
dist: base linalg/solve
calib: base linalg linalg/solve kernels text model/layer model dist
train: base dist linalg format kernels model/layer model calib
quant/options: base
quant/layer: base dist linalg linalg/solve format kernels quant/options
cuda: base linalg linalg/solve format kernels model calib quant/options quant/layer
cuda/shim: base linalg linalg/solve cuda
eval/device: base model eval quant/options cuda
quant/plan: base linalg linalg/solve format kernels model eval calib train quant/options quant/layer
quant/run: base dist linalg format kernels gguf checkpoint text model/arch model eval calib train quant/options quant/layer cuda eval/device quant/plan
export: base format kernels gguf checkpoint text model model/layer
export/report: base checkpoint
tools: base linalg format kernels checkpoint model/arch model quant/options quant/layer cuda
mpi: base
server: base
server/api: base server
server/http: base server server/api
"
path_of() { # tools/, server/ and mpi/ stand beside src/: they are no part of the library
  case $1 in tools/* | server/* | mpi/*) echo "$1" ;; *) echo "src/$1" ;; esac
}
folder_of() { # the folder with a rule that a path in src/, or of those beside it, belongs to
  part=$1
  while part=$(dirname "$part"); do
    case $part in . | /) return 1 ;; esac
    case $(basename "$part") in ref | x86 | arm | multi) continue ;; esac
    echo "$part"
    return 0
  done
}
for file in $({ (cd src && find . -name '*.[ch]'); find ./tools ./server ./mpi -name '*.[ch]'; } | sed 's,^\./,,' | sort); do
  part=$(folder_of "$file") path=$(path_of "$file")
  rule=$(printf '%s' "$rules" | sed -n "s,^$part:,& ,p")
  [ -n "$rule" ] || { echo "$path: no rule for $part in check-layers.sh"; failed=1; continue; }
  for included in $(sed -nE 's,^ *#include "([a-z0-9_/]+\.h)".*,\1,p' "$path"); do
    [ -e "$(path_of "$included")" ] || { echo "$path includes $included, which is not there"; failed=1; continue; }
    below=$(folder_of "$included")
    case " $part ${rule#*:} " in
      *" $below "*) ;;
      *) echo "$path includes $included: $part must not know $below"; failed=1 ;;
    esac
  done
done
if grep -rnE '#include "[a-z0-9_]+/' cli | grep -vE '"(tools/bench|server/server|mpi/mpi)\.h"$'; then
  echo "cli/ may include only <gptvq/…>, its own headers, tools/bench.h, server/server.h and mpi/mpi.h"; failed=1
fi
if grep -nH '#include "' tools/bench.h server/server.h mpi/mpi.h include/gptvq/*.h; then
  echo "what the CLI includes may itself include only <gptvq/…>"; failed=1
fi
# what runs in a context asks for its threads and its level, not for those of the default one
if grep -rnE '\bgptvq_(get_threads|get_cpu)\(' src | grep -vE '^src/base/(threads|cpu)\.c:'; then
  echo "src/ takes gptvq_thread_count() and gptvq_cpu()"; failed=1
fi
for library in "$build"/libgptvq_*.a; do
  [ -e "$library" ] || continue
  foreign=$(nm --defined-only -g "$library" 2>/dev/null | awk 'NF == 3 && $2 ~ /[TDBRVW]/ {print $3}' \
            | grep -vE '^(gptvq_|__asan|__odr_asan|_ZTS|_ZTW|__tsan|__ubsan|asan\.|tsan\.)' | sort -u)
  [ -z "$foreign" ] || { echo "$library exports names without gptvq_: $foreign"; failed=1; }
done
# the runtime fits a phone: neither LAPACK nor the quantizer
for library in base linalg format kernels gguf checkpoint text model eval; do
  file="$build/libgptvq_$library.a"
  if [ -e "$file" ] && nm -u "$file" 2>/dev/null | grep -qE ' LAPACKE_|gptvq_(solve_layer|factor_create)$'; then
    echo "$file needs LAPACK or the quantizer"; failed=1
  fi
done
exit $failed
