#!/bin/sh
# The house has one direction: a folder may include only itself and what its row names; the CLI only the public headers; every symbol that
# the libraries export begins with gptvq_.
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
checkpoint: base format kernels
text: base
text/template: base text
model: base linalg format kernels checkpoint
eval: base linalg kernels checkpoint text model
calib: base linalg linalg/solve kernels text model
train: base linalg format kernels model calib
quant/options: base
quant/layer: base linalg linalg/solve format kernels quant/options
quant/transform: base linalg format kernels checkpoint model calib quant/options
quant/plan: base linalg linalg/solve format kernels model calib train quant/options quant/layer
quant/run: base linalg format kernels checkpoint text model calib train quant/options quant/layer quant/transform quant/plan
export: base format kernels checkpoint model
"
folder_of() { # the folder with a rule that a path of src/ belongs to
  part=$1
  while part=$(dirname "$part"); do
    case $part in . | /) return 1 ;; esac
    case $(basename "$part") in ref | x86 | arm | multi) continue ;; esac
    echo "$part"
    return 0
  done
}
for file in $(cd src && find . -name '*.[ch]' | sed 's,^\./,,' | sort); do
  part=$(folder_of "$file")
  rule=$(printf '%s' "$rules" | sed -n "s,^$part:,& ,p")
  [ -n "$rule" ] || { echo "src/$file: no rule for src/$part in check-layers.sh"; failed=1; continue; }
  for included in $(sed -nE 's,^ *#include "([a-z0-9_/]+\.h)".*,\1,p' "src/$file"); do
    [ -e "src/$included" ] || { echo "src/$file includes $included, which is not there"; failed=1; continue; }
    below=$(folder_of "$included")
    case " $part ${rule#*:} " in
      *" $below "*) ;;
      *) echo "src/$file includes $included: $part must not know $below"; failed=1 ;;
    esac
  done
done
if grep -rnE '#include "[a-z0-9_]+/' cli; then
  echo "cli/ may include only <gptvq/…> and its own headers"; failed=1
fi
for library in "$build"/libgptvq_*.a; do
  [ -e "$library" ] || continue
  foreign=$(nm --defined-only -g "$library" 2>/dev/null | awk 'NF == 3 && $2 ~ /[TDBRVW]/ {print $3}' \
            | grep -vE '^(gptvq_|__asan|__odr_asan|_ZTS|__tsan|__ubsan|asan\.|tsan\.)' | sort -u)
  [ -z "$foreign" ] || { echo "$library exports names without gptvq_: $foreign"; failed=1; }
done
# the runtime fits a phone: neither LAPACK nor the quantizer
for library in base linalg format kernels checkpoint text model eval; do
  file="$build/libgptvq_$library.a"
  if [ -e "$file" ] && nm -u "$file" 2>/dev/null | grep -qE ' LAPACKE_|gptvq_(solve_layer|factor_create)$'; then
    echo "$file needs LAPACK or the quantizer"; failed=1
  fi
done
exit $failed
