#!/bin/sh
# Installs what gptvq builds with (Debian/Ubuntu). Does nothing when everything is there already.
set -eu
packages="gcc make cmake ninja-build pkg-config libopenblas-dev liblapacke-dev libdnnl-dev libjansson-dev
libpcre2-dev libutf8proc-dev libcmocka-dev"
missing=""
for package in $packages; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "installing:$missing" >&2
sudo=""
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "install-deps.sh: run as root, or install:$missing" >&2; exit 1; }
  sudo=sudo
fi
$sudo apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >&2
