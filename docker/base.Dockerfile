# The base of every stage image: Python, torch, the locked dependencies, and with MINKOWSKI=1 MinkowskiEngine. No project code.
# Syntax of the classic builder. `bench images build` makes the context: locks, minkowski/, and wheels/ (a local torch, if any).
# torch 2.13 is built for CUDA 13.0. Only building MinkowskiEngine needs the CUDA compiler, so only the build stage has it.
ARG BASE=docker.io/nvidia/cuda:13.0.1-runtime-ubuntu24.04
ARG BUILD_BASE=docker.io/nvidia/cuda:13.0.1-devel-ubuntu24.04

FROM ${BUILD_BASE} AS build
ARG TORCH=torch==2.13.0
ARG TORCH_ARGS=
ARG MINKOWSKI=0
ARG VARIANT=cpu
SHELL ["/bin/sh", "-euxc"]
# The base image fixes the versions; images.lock pins it by digest.
# hadolint ignore=DL3008
RUN apt-get update; \
    apt-get install --yes --no-install-recommends python3 python3-venv; \
    if [ "$MINKOWSKI" = 1 ]; then apt-get install --yes --no-install-recommends g++ libopenblas-dev python3-dev; fi; \
    rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
# hadolint ignore=SC2086
RUN python3 -m venv /opt/bench; \
    /opt/bench/bin/pip install --no-cache-dir --require-hashes -r requirements.lock; \
    if [ "$VARIANT" = cuda ] && [ -z "$TORCH_ARGS" ] && ! ls wheels/*.whl; then \
        /opt/bench/bin/pip install --no-cache-dir --require-hashes -r torch-cuda.lock; \
    else \
        /opt/bench/bin/pip install --no-cache-dir --find-links wheels $TORCH_ARGS "$TORCH"; \
    fi
RUN if [ "$MINKOWSKI" = 1 ]; then \
        /opt/bench/bin/pip install --no-cache-dir ninja "setuptools<81" wheel; \
        sh minkowski/build.sh /opt/bench/bin/python /build/made "$VARIANT"; \
        /opt/bench/bin/pip install --no-cache-dir --no-deps made/*.whl; \
        /opt/bench/bin/pip uninstall --yes ninja wheel; \
    fi; \
    /opt/bench/bin/pip uninstall --yes pip

FROM ${BASE}
ARG VARIANT=cpu
SHELL ["/bin/sh", "-euxc"]
# To launch a kernel, Triton compiles a small Python extension.
# hadolint ignore=DL3008
RUN apt-get update; \
    apt-get install --yes --no-install-recommends libgomp1 libopenblas0-pthread python3 tini; \
    if [ "$VARIANT" = cuda ]; then apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev; fi; \
    rm -rf /var/lib/apt/lists/*; \
    useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin bench; \
    mkdir -p /bench
COPY --from=build /opt/bench /opt/bench
ENV PATH=/opt/bench/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONHASHSEED=0 PYTHONPATH=/opt/code HOME=/tmp
USER 10001
WORKDIR /tmp
