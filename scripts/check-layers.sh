#!/bin/sh
# The house has one direction: a part may include only itself and the parts below it; the CLI only the public headers; and every
# symbol that the libraries export begins with gptvq_.
set -u
build=${1:-build/release}
cd "$(dirname "$0")/.." || exit 1
failed=0

# part: parts that it may include
rules="
base:base
linalg:base linalg
kernels:base kernels
checkpoint:base kernels checkpoint
text:base text
model:base linalg kernels checkpoint model
eval:base linalg kernels checkpoint text model eval
quant:base linalg kernels checkpoint text model quant
"
for part in $(ls src); do
  allowed=$(printf '%s' "$rules" | sed -n "s/^$part://p")
  [ -n "$allowed" ] || { echo "src/$part: a part without a rule in check-layers.sh"; failed=1; continue; }
  for included in $(grep -rhoE '#include "[a-z0-9_]+/' "src/$part" | sed 's/#include "//; s,/,,' | sort -u); do
    case " $allowed " in
      *" $included "*) ;;
      *) echo "src/$part includes $included/, which is not below it:"; grep -rn "#include \"$included/" "src/$part"; failed=1 ;;
    esac
  done
done
if grep -rnE '#include "(base|linalg|kernels|checkpoint|text|model|eval|quant)/' cli; then
  echo "cli/ may include only <gptvq/…> and its own headers"; failed=1
fi
for library in "$build"/libgptvq_*.a; do
  [ -e "$library" ] || continue
  foreign=$(nm --defined-only -g "$library" 2>/dev/null | awk 'NF == 3 && $2 ~ /[TDBRVW]/ {print $3}' \
            | grep -vE '^(gptvq_|__asan|__odr_asan|_ZTS|__tsan|__ubsan|asan\.|tsan\.)' | sort -u)
  [ -z "$foreign" ] || { echo "$library exports names without gptvq_: $foreign"; failed=1; }
done
# the runtime fits a phone: neither LAPACK nor the quantizer
for library in base linalg kernels checkpoint text model eval; do
  file="$build/libgptvq_$library.a"
  if [ -e "$file" ] && nm -u "$file" 2>/dev/null | grep -qE ' LAPACKE_|gptvq_(solve_layer|factor_create)$'; then
    echo "$file needs LAPACK or the quantizer"; failed=1
  fi
done
exit $failed
