# The core runtime with PyTorch. PIP_FIND_LINKS may name a page of links, such as PyTorch's list of CPU builds: the index's own
# build for Linux brings gigabytes of CUDA.
#   docker build -f runtimes/images/torch.Dockerfile --build-arg PIP_FIND_LINKS=… -t fairlead/runtime-torch:0.1.0 .
ARG CORE=fairlead/runtime-core:0.1.0
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS dependencies
ARG PIP_FIND_LINKS
ARG TORCH=2.13.0
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-compile --target /torch "torch==${TORCH}" safetensors "numpy>=1.26" \
 && rm -rf /torch/bin /torch/torch/include /torch/torch/test /torch/numpy* \
 && python -m compileall -q -j 0 /torch

FROM ${CORE}
LABEL org.opencontainers.image.title="Fairlead torch runtime" \
      org.opencontainers.image.description="Model server for PyTorch, and all of the core runtime"
COPY --from=dependencies /torch /torch
ENV PYTHONPATH=/app:/dependencies:/torch
