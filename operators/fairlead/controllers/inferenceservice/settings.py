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
    prune_grace: float = 1.0
    """Seconds between the gateways' word that a workload carries nothing and its deletion."""
