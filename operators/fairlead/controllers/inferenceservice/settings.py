"""What an installation sets once for all of its services."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.api import names


@dataclass(frozen=True)
class Settings:
    ingress_domain: str = names.DEFAULT_DOMAIN
    ingress_port: int | None = None
    """The port that URLs name: the gateway's, where it is not 80."""
    gateway_address: str | None = None
    """`host:port` of the gateway as pods reach it; a transformer then calls its predictor through it, and so follows its canaries."""
    storage_initializer_image: str = "fairlead/runtime-core:0.1.0"
    """Fetches models for runtimes that do not do it themselves."""
    storage_mirrors: str = ""
    """Where models lie that manifests name elsewhere, as `fairlead.runtime.storage.mirrors` reads it."""
    allow_pickle: bool = False
    """What holds where neither a service nor its namespace says whether pickle files may be loaded."""
    image_volumes: bool = False
    """Whether the cluster can mount images (`oci://`); else they are fetched like any other model."""
    model_cache: str = ""
    """`hostPath:/DIRECTORY` or `claim:NAME`, where fetched models stay for the pods after; empty: they go with their pod."""
    model_cache_limit: str = ""
    config_namespace: str | None = None
    """Where the ConfigMap `inferenceservice-config` is; None: it is not looked at."""
    prune_grace: float = 1.0
    """Seconds between the gateways' word that a workload carries nothing and its deletion."""
