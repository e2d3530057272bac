"""Reads what lies outside of an InferenceService and says how its models are fetched: ServiceAccounts, annotations of their Secrets, the
configuration. Of a Secret only the metadata is asked for, by name: its values never come here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fairlead.api.inferenceservice import InferenceService
from fairlead.controllers.cluster import Cluster
from fairlead.controllers.inferenceservice.catalogue import Catalogue
from fairlead.controllers.inferenceservice.credentials import (
    AWS_ROLE,
    CredentialConfig,
    Credentials,
    SecretReference,
    account_name,
    s3_environment,
    secret_names,
)
from fairlead.controllers.inferenceservice.podsource import Surroundings
from fairlead.kube.errors import ApiError, Forbidden, NotFound
from fairlead.kube.objects import Key, Object
from fairlead.kube.resources import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, Resource

log = logging.getLogger(__name__)

CONFIG_MAP = "inferenceservice-config"
GOOD_FOR = 30.0
"""Seconds for which a Secret's annotations are believed: nothing watches Secrets."""


class MetadataReader(Protocol):
    """What is needed of a client."""

    async def metadata(self, resource: Resource, name: str, namespace: str | None = None) -> Object: ...


class SurroundingsReader:
    """`config_namespace`: where `inferenceservice-config` is; None: it is not looked at."""

    def __init__(
        self,
        cluster: Cluster,
        catalogue: Catalogue,
        client: MetadataReader,
        *,
        config_namespace: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._catalogue = catalogue
        self._client = client
        self._config_namespace = config_namespace
        self._clock = clock
        self._annotations: dict[Key, tuple[float, Mapping[str, str]]] = {}

    async def read(self, isvc: InferenceService) -> Surroundings:
        namespace = isvc.metadata.namespace or "default"
        fields = [*isvc.spec.components().values(), *(canary.predictor for canary in isvc.spec.canary or ())]
        config = self._config()
        accounts: dict[str, Credentials] = {}
        pull_secrets: dict[str, tuple[str, ...]] = {}
        for name in {account_name(component.pod_fields()) for component in fields}:
            account = self._cluster.get(SERVICE_ACCOUNTS, Key(namespace, name))
            found = await self._credentials(namespace, account, isvc.metadata.annotations, config)
            if found:
                accounts[name] = found
            if pulls := _names((account or {}).get("imagePullSecrets")):
                pull_secrets[name] = pulls
        return Surroundings(accounts, pull_secrets, self._catalogue.storage_containers(), config)

    async def _credentials(
        self, namespace: str, account: Object | None, annotations: Mapping[str, str], config: CredentialConfig
    ) -> Credentials:
        secrets = tuple(
            [
                SecretReference(name, s3_environment(await self._annotations_of(Key(namespace, name)), config))
                for name in secret_names(account, annotations, config)
            ]
        )
        own: Mapping[str, str] = ((account or {}).get("metadata") or {}).get("annotations") or {}
        return Credentials(secrets, s3_environment(own, config) if AWS_ROLE in own else {}, config)

    async def _annotations_of(self, secret: Key) -> Mapping[str, str]:
        """A Secret that is not there, or may not be read, has none: the pod itself says if it needs what it does not get."""
        known = self._annotations.get(secret)
        if known is not None and self._clock() - known[0] < GOOD_FOR:
            return known[1]
        found: Mapping[str, str] = {}
        try:
            metadata: dict[str, Any] = (await self._client.metadata(SECRETS, secret.name, secret.namespace))["metadata"]
            found = {key: value for key, value in (metadata.get("annotations") or {}).items() if "/s3-" in key}
        except NotFound:
            return found
        except Forbidden:
            log.debug("annotations of Secret %s may not be read", secret)
        except ApiError:
            if known is None:
                raise
            found = known[1]
        self._annotations[secret] = (self._clock(), found)
        return found

    def _config(self) -> CredentialConfig:
        if self._config_namespace is None:
            return CredentialConfig()
        found = self._cluster.get(CONFIG_MAPS, Key(self._config_namespace, CONFIG_MAP)) or {}
        return CredentialConfig.parse((found.get("data") or {}).get("credentials") or "")


def _names(references: Any) -> tuple[str, ...]:
    return tuple(entry["name"] for entry in references or () if entry.get("name"))
