# scikit-learn, XGBoost, LightGBM and ONNX in one process. Build from the repository's root:
#   docker build -f runtimes/images/core.Dockerfile -t fairlead/runtime-core:0.1.0 .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS dependencies
WORKDIR /build
COPY pyproject.toml tools/extras.py ./tools/
RUN mv tools/pyproject.toml . && python tools/extras.py runtime sklearn onnx xgboost lightgbm s3 gcs azure hf > requirements.txt
# scipy's and scikit-learn's own tests take 60 MB and are never imported.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-compile --target /dependencies -r requirements.txt \
 && find /dependencies -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && rm -rf /dependencies/bin \
 && python -m compileall -q -j 0 /dependencies

FROM ${BASE}
LABEL org.opencontainers.image.title="Fairlead core runtime" \
      org.opencontainers.image.description="Model server for scikit-learn, XGBoost, LightGBM and ONNX" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/fairlead/fairlead"
# libgomp: XGBoost and LightGBM compute with OpenMP.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*
ENV PYTHONPATH=/app:/dependencies PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
COPY --from=dependencies /dependencies /dependencies
RUN mkdir -p /mnt/models && chown 65532:65532 /mnt/models
COPY LICENSE THIRD_PARTY_NOTICES.md /licenses/
COPY operators/fairlead/api /app/fairlead/api
COPY runtimes/fairlead/runtime /app/fairlead/runtime
RUN PYTHONDONTWRITEBYTECODE= python -m compileall -q /app
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["python", "-m", "fairlead.runtime"]
