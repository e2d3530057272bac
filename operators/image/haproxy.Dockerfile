# HAProxy as Debian builds it, for the gateway's pods. The official haproxy image does as well: the chart's gateway.haproxy.image.
#   docker build -f operators/image/haproxy.Dockerfile -t fairlead/haproxy:0.1.0 .
FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="HAProxy for Fairlead" \
      org.opencontainers.image.description="HAProxy from Debian; its source is Debian's haproxy source package" \
      org.opencontainers.image.licenses="GPL-2.0-or-later"
RUN apt-get update \
 && apt-get install -y --no-install-recommends haproxy \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*
USER 65532:65532
# SIGTERM would cut what is under way: SIGUSR1 lets HAProxy finish it.
STOPSIGNAL SIGUSR1
ENTRYPOINT ["haproxy"]
