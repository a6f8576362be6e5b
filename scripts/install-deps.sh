#!/bin/sh
# Installs what gptvq builds with (Debian/Ubuntu); does nothing when everything is there already.
#   scripts/install-deps.sh              the native build, tests and demo
#   scripts/install-deps.sh --mpi        also Open MPI, for gptvq quantize on several machines (some 100 MB)
#   scripts/install-deps.sh --dev        also what developers check with: clang-format, debootstrap, Open MPI, ccache, a C++ compiler
#   scripts/install-deps.sh --python     also python3-venv, for scripts/check-python.sh
#   scripts/install-deps.sh --cuda       also nvcc, for kernels of cards: where there is no CUDA toolkit, NVIDIA's packages from
#                                        PyPI (some 290 MB), in ~/.cache/gptvq/cuda, where cmake/cuda.cmake looks
#   scripts/install-deps.sh --bench      also gnuplot, for the pictures of bench/
#   scripts/install-deps.sh --aarch64    also the cross compiler, qemu-user and the arm64 libraries
set -eu
packages="gcc make cmake ninja-build pkg-config libopenblas-dev liblapacke-dev libjansson-dev
libpcre2-dev libutf8proc-dev libedit-dev libmicrohttpd-dev curl libcmocka-dev"
if [ "${1:-}" = --aarch64 ]; then
  packages="$packages gcc-aarch64-linux-gnu qemu-user libopenblas-dev:arm64 liblapacke-dev:arm64 libjansson-dev:arm64
libpcre2-dev:arm64 libutf8proc-dev:arm64 libcmocka-dev:arm64"
fi
[ "${1:-}" != --mpi ] || packages="$packages libopenmpi-dev openmpi-bin"
[ "${1:-}" != --dev ] || packages="$packages clang-format-14 debootstrap libopenmpi-dev openmpi-bin ccache g++"
[ "${1:-}" != --python ] || packages="$packages python3-venv"
[ "${1:-}" != --bench ] || packages="$packages gnuplot-nox"
nvcc=not-wanted
if [ "${1:-}" = --cuda ]; then
  nvcc=$(PATH="${CUDA_HOME:+$CUDA_HOME/bin:}${CUDA_PATH:+$CUDA_PATH/bin:}$PATH:/usr/local/cuda/bin:$HOME/.cache/gptvq/cuda/nvidia/cu13/bin"
    command -v nvcc || true)
  packages="$packages g++"
  [ -n "$nvcc" ] || packages="$packages python3-venv"
fi
missing=""
for package in $packages; do
  dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else echo "install-deps.sh: run as root, or install:$missing" >&2; exit 1
  fi
}
if [ -n "$missing" ]; then
  echo "installing:$missing" >&2
  [ "${1:-}" != --aarch64 ] || as_root dpkg --add-architecture arm64
  as_root apt-get update -qq
  # shellcheck disable=SC2086
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
fi
[ -z "$nvcc" ] || exit 0

# One release for all of them: each would come in its newest otherwise. pip's own settings say where PyPI is.
release=13.0
echo "installing: nvcc $release into ~/.cache/gptvq/cuda" >&2
mkdir -p "$HOME/.cache/gptvq"
new=$(mktemp -d "$HOME/.cache/gptvq/new-XXXXXX")
trap 'rm -rf "$new"' EXIT
python3 -m venv "$new/venv"
"$new/venv/bin/pip" install -q --disable-pip-version-check --no-compile --only-binary :all: --target "$new/cuda" \
  "nvidia-cuda-nvcc==$release.*" "nvidia-nvvm==$release.*" "nvidia-cuda-crt==$release.*" "nvidia-cuda-runtime==$release.*" >&2
"$new/cuda/nvidia/cu13/bin/nvcc" --version > "$new/version"
rm -rf "$HOME/.cache/gptvq/cuda"
mv "$new/cuda" "$HOME/.cache/gptvq/cuda"
