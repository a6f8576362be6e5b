#!/bin/sh
# Proves that a bare machine can build and use gptvq: makes a bare Debian root (debootstrap, minbase, plus git and make), clones HEAD into
# it, runs there, word for word and in one shell, the commands of README's sections "Try it" and "The library", and removes the root.
#   scripts/fresh-check.sh            needs root, debootstrap and a Debian mirror; about seven minutes on two cores
#   MIRROR=URL SUITE=NAME DIR=FOLDER  where packages come from (default: as the host's apt), which Debian (bookworm), where the root
#                                     is made (default: a fresh folder under $TMPDIR or /tmp)
#   TESTS=REGEX                       of `make check` those tests alone
# Exit 0: all of it worked; 1: something did not; 77: it cannot be tried here, with a line that says why.
set -eu
cd "$(dirname "$0")/.."
suite=${SUITE:-bookworm}
cannot() { echo "fresh-check: not tried: $*" >&2; exit 77; }
[ "$(id -u)" = 0 ] || cannot "only root can make a Debian root"
command -v debootstrap >/dev/null || cannot "no debootstrap: scripts/install-deps.sh --dev"
unshare --mount true 2>/dev/null || cannot "no mount namespace of its own is allowed here"

# the first mirror of a Debian archive in the host's sources, of either format
mirror=${MIRROR:-$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
  sed -nE 's/^(URIs:|deb( +\[[^]]*\])?) +([^ ]+).*/\3/p' | grep -E '/debian/?$' | head -n 1)}
[ -n "$mirror" ] || cannot "no Debian mirror in apt's sources: MIRROR=URL scripts/fresh-check.sh"

root=$(mktemp -d "${DIR:-${TMPDIR:-/tmp}}/gptvq-fresh-XXXXXX")
# Mounts live in a namespace of their own that ends with its processes: here, outside, there is nothing to cross into.
trap 'rm -rf --one-file-system "$root" "$root.log"' EXIT
trap 'exit 130' INT TERM
echo "fresh-check: a bare $suite from $mirror in $root"
if ! debootstrap --variant=minbase --include=git,make,ca-certificates "$suite" "$root" "$mirror" > "$root.log" 2>&1; then
  tail -n 5 "$root.log" >&2
  rm -f "$root.log"
  cannot "debootstrap found no usable mirror at $mirror"
fi
rm -f "$root.log"

# the host's way to its mirror: names, certificates, proxies
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
  [ ! -e "$file" ] || cp -L "$file" "$root$file"
done
apt-config dump | grep -E '^Acquire::https?::(Proxy|CaInfo) ' > "$root/etc/apt/apt.conf.d/90host" || true
git clone -q "file://$PWD" "$root/root/gptvq"

# commands: the indented lines of the two sections, without their comments
script=$root/root/readme.sh
awk '/^## /{on = /^## (Try it|The library)$/} on && /^    [^ ]/ {sub(/^    /, ""); sub(/ +# .*/, ""); print}' README.md > "$script"
[ "$(grep -c . "$script")" -ge 4 ] || { echo "fresh-check: README's commands were not found" >&2; exit 1; }
sed 's/^/  /' "$script"

export root
set +e
# shellcheck disable=SC2016
unshare --mount --propagation private --pid --fork --kill-child sh -euc '
  mount -t proc proc "$root/proc"
  mount --bind /dev "$root/dev"
  exec env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb LANG=C.UTF-8 \
    ${TESTS:+TESTS="$TESTS"} ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
    chroot "$root" sh -euxc "cd /root/gptvq; . /root/readme.sh"' < /dev/null
code=$?
[ "$code" = 0 ] && echo "fresh-check: README's commands work on a bare $suite" && exit 0
echo "fresh-check: FAILED with exit code $code on a bare $suite" >&2
exit 1
