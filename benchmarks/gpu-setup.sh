#!/usr/bin/env bash
# What benchmarks/gpu.py compares with, and what may be missing where it runs, without a network there.
#
#   bash benchmarks/gpu-setup.sh --download 3.11 [PACKAGE …]   # here: wheels for that Python, by pip
#   bash benchmarks/gpu-setup.sh                               # there: installs them beside Python's own
#
# The wheels lie in benchmarks/wheels/, the libraries in benchmarks/wheels/installed/; git ignores
# both. torch, triton and numpy are taken as they are there. Not among the wheels, for their size:
# JAX for GPUs with OTT-JAX, which are compared with where they are installed.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
wheels="$here/wheels" installed="$here/wheels/installed" python="${PYTHON:-python3}"
peers=(flash-sinkhorn geomloss POT pythae pykeops keopscore pybind11)
needed=(pytest pluggy iniconfig packaging hypothesis sortedcontainers safetensors pillow jinja2 markupsafe
  rich markdown-it-py mdurl pygments tyro docstring-parser typeguard typing-extensions
  dill)
whole=(pydantic)  # with what it depends on, whose version it fixes

if [ "${1:-}" = --download ]; then
  [ $# -ge 2 ] || { echo "gpu-setup: error: name the Python there: --download 3.11" >&2; exit 2; }
  version="$2"; shift 2
  mkdir -p "$wheels"
  fits=(--only-binary=:all: --python-version "$version" --platform manylinux_2_28_x86_64
    --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64)
  "$python" -m pip download --quiet "${fits[@]}" --dest "$wheels" "${whole[@]}"
  for package in "${peers[@]}" "${needed[@]}" "$@"; do
    # one at a time: what has no wheel is built, and what cannot be is left out
    "$python" -m pip download --quiet --no-deps "${fits[@]}" --dest "$wheels" "$package" 2>/dev/null \
      || "$python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" "$package" 2>/dev/null \
      || echo "gpu-setup: $package is left out: it has no wheel for Python $version" >&2
  done
  du -sh "$wheels"
  exit
fi

[ $# -eq 0 ] \
  || { echo "gpu-setup: error: \`$1\` is no argument: give --download VERSION, or none" >&2; exit 2; }
compgen -G "$wheels/*.whl" >/dev/null \
  || { echo "gpu-setup: error: $wheels holds no wheels: run it with --download first" >&2; exit 2; }
mkdir -p "$installed"
for wheel in "$wheels"/*.whl; do
  name="$(basename "$wheel")"; name="${name%%-*}"
  # what is there already stays, so that nothing is mixed
  "$python" -c "import importlib.metadata as m, sys; m.version(sys.argv[1])" "$name" 2>/dev/null && continue
  "$python" -m pip install --quiet --no-index --no-deps --target "$installed" --upgrade "$wheel" \
    || echo "gpu-setup: $name is left out: its wheel does not fit this Python" >&2
done
printf 'export PYTHONPATH=%q${PYTHONPATH:+:$PYTHONPATH}\n' "$installed"
