#!/bin/sh
# Build a MinkowskiEngine wheel from its source package: build.sh PYTHON FOLDER cpu|cuda
# PYTHON needs torch, numpy, ninja, wheel and setuptools < 81; the system needs a C++ compiler and OpenBLAS (libopenblas-dev).
# For CUDA on a machine without a GPU, set TORCH_CUDA_ARCH_LIST. Takes about 10 minutes on two cores, 2.5 GiB per process.
set -eu
python=$1 folder=$2 variant=$3
here=$(cd "$(dirname "$0")" && pwd)
version=0.5.4
sha256=b1879c00d0b0b1d30ba622cce239886a7e3c78ee9da1064cdfe2f64c2ab15f94
case $variant in
    cpu) option=--cpu_only ;;
    cuda) option=--force_cuda ;;
    *) echo "build.sh: variant '$variant': expected cpu or cuda" >&2; exit 2 ;;
esac
# Its setup calls `pip` by name, and the pip of a distribution refuses to install outside of a virtual environment.
PATH=$(cd "$(dirname "$python")" && pwd):$PATH
export PATH
mkdir -p "$folder"
cd "$folder"
archive=MinkowskiEngine-$version.tar.gz
[ -f "$archive" ] || "$python" -m pip download --quiet --no-deps --no-binary :all: --no-build-isolation "MinkowskiEngine==$version"
echo "$sha256  $archive" | sha256sum --check --quiet
rm -rf "MinkowskiEngine-$version"
tar -xzf "$archive"
"$python" "$here/edit.py" "MinkowskiEngine-$version"
# Since CUDA 13, thrust is in a separate folder, which nvcc searches but the C++ compiler does not.
cccl=${CUDA_HOME:-/usr/local/cuda}/include/cccl
[ "$variant" = cpu ] || [ ! -d "$cccl" ] || export CPATH="$cccl${CPATH:+:$CPATH}"
MAX_JOBS=${MAX_JOBS:-2} "$python" -m pip wheel --quiet --no-deps --no-build-isolation --use-pep517 \
    --config-settings=--global-option=$option --config-settings=--global-option=--blas=openblas \
    --wheel-dir . "./MinkowskiEngine-$version"
rm -rf "MinkowskiEngine-$version"
ls [Mm]inkowski[Ee]ngine-"$version"-*.whl >&2
