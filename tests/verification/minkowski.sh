#!/bin/sh
# An environment with MinkowskiEngine for `make verify-minkowski` and `make perf`: made once, outside of the tree.
# The wheel is kept under a hash of the recipe, with the versions of Python and torch; set MINKOWSKI_VENV to move all of it.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
bin=$MINKOWSKI_VENV/bin
hash() { cat "$@" | sha256sum | cut -c1-16; }
build=$(hash "$root"/docker/minkowski/*)-$("$PYTHON" -c 'import platform as p, torch; print(p.python_version(), torch.__version__, p.machine(), sep="-")')
tag=$build-$(hash "$root/requirements.lock")
[ "$(cat "$MINKOWSKI_VENV/made" 2>/dev/null)" != "$tag" ] || exit 0
# Before anything is downloaded: the build takes minutes and ends without it.
"$PYTHON" "$root/tests/verification/has_openblas.py"
rm -rf "$MINKOWSKI_VENV"
"$PYTHON" -m venv "$MINKOWSKI_VENV"
"$bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$root/requirements.lock"
"$bin/python" -m pip install --quiet --disable-pip-version-check ${TORCH_ARGS:-} -r "$root/requirements-torch.lock"
"$bin/python" -m pip install --quiet --disable-pip-version-check ninja "setuptools<81" wheel
wheels=${MINKOWSKI_VENV%/*}/minkowski-wheels/$build
mkdir -p "$wheels"
find "$wheels" -name '*.whl' | grep -q . || sh "$root/docker/minkowski/build.sh" "$bin/python" "$wheels" cpu
"$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$(find "$wheels" -name '*.whl')"
echo "$tag" > "$MINKOWSKI_VENV/made"
