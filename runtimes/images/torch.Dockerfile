# The core runtime with PyTorch. PIP_FIND_LINKS may name a page of links, such as PyTorch's list of CPU builds: the index's own
# build for Linux brings gigabytes of CUDA.
#   docker build -f runtimes/images/torch.Dockerfile --build-arg PIP_FIND_LINKS=… -t fairlead/runtime-torch:0.1.0 .
ARG CORE=fairlead/runtime-core:0.1.0
ARG BASE=python:3.11-slim-bookworm

FROM ${CORE} AS core

# Of the core runtime, its packages only: a change of the code installs nothing anew.
FROM ${BASE} AS dependencies
COPY --from=core /dependencies /dependencies
ENV PYTHONPATH=/dependencies
ARG PIP_FIND_LINKS
ARG TORCH=2.13.0
# Only what the core runtime has not: pip sees that on PYTHONPATH. Left out of PyTorch: headers, tests, and a file that only later
# Pythons can compile.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-compile --prefix /torch "torch==${TORCH}" safetensors \
 && mv "$(find /torch -type d -name '*-packages' | head -1)" /packages && cd /packages \
 && find torch/bin -type f ! -name torch_shm_manager -delete && rm -rf torch/include torch/share torch/test torch/lib/*test*.so torch/testing/_internal/py312_intrinsics.py caffe2 \
 && python -m compileall -q -j 0 /packages

FROM ${CORE}
LABEL org.opencontainers.image.title="Fairlead torch runtime" \
      org.opencontainers.image.description="The core runtime with PyTorch"
COPY --from=dependencies /packages /torch
ENV PYTHONPATH=/app:/dependencies:/torch
