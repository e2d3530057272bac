"""Credentials for fetching models, as KServe takes them: from the Secrets of the pods' ServiceAccount, or from the Secret `storage-config`.

The operator never sees a secret value. A pod refers to the Secrets (`envFrom`) under a prefix that only the fetching process reads; which kind of
storage a Secret is for, its keys tell there (`fairlead.runtime.storage.secrets`). What is read here is a Secret's annotations.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.api.component import StorageSpec
from fairlead.controllers.inferenceservice.errors import InvalidPredictorSpec

log = logging.getLogger(__name__)

CA_BUNDLE_VOLUME = "cabundle-cert"
CA_BUNDLE_DIRECTORY = "/etc/ssl/custom-certs"
AWS_ROLE = "eks.amazonaws.com/role-arn"
"""On a ServiceAccount: the cloud gives its pods an identity, and the account's own annotations say where S3 is."""
_GCS_VOLUME = "user-gcp-sa"
_GCS_DIRECTORY = "/var/secrets"
STORAGE_TYPES = ("s3", "gs", "azure", "hf")
_DEFAULT_KEY = "default"

_S3 = {
    "s3-verifyssl": ("s3VerifySSL", "S3_VERIFY_SSL"),
    "s3-useanoncredential": ("s3UseAnonymousCredential", "awsAnonymousCredential"),
    "s3-region": ("s3Region", "AWS_DEFAULT_REGION"),
    "s3-usevirtualbucket": ("s3UseVirtualBucket", "S3_USER_VIRTUAL_BUCKET"),
    "s3-useaccelerate": ("s3UseAccelerate", "S3_USE_ACCELERATE"),
    "s3-cabundle": ("s3CABundle", "AWS_CA_BUNDLE"),
    "s3-cabundle-configmap": ("s3CABundleConfigMap", "AWS_CA_BUNDLE_CONFIGMAP"),
}
"""Annotation below `serving.kserve.io/` -> (key of the configuration's `s3`, variable)."""


@dataclass(frozen=True)
class CredentialConfig:
    """The section `credentials` of the ConfigMap `inferenceservice-config`."""

    s3: Mapping[str, str] = field(default_factory=dict)
    gcs_file: str = "gcloud-application-credentials.json"
    spec_source: str = "storage-config"
    """The Secret whose entries `storage.key` names."""
    named_by: str = "serving.kserve.io/storageSecretName"
    """The annotation by which an InferenceService names its Secret itself."""

    @classmethod
    def parse(cls, text: str) -> CredentialConfig:
        """KServe's JSON; what is not that is logged and counts for nothing."""
        try:
            section = json.loads(text or "{}")
            s3 = {key: str(value) for key, value in section.get("s3", {}).items() if value not in (None, "")}
            gcs = section.get("gcs", {}).get("gcsCredentialFileName")
        except (ValueError, AttributeError) as error:
            log.warning("inferenceservice-config: credentials are not as they should be, and ignored: %s", error)
            return cls()
        return cls(
            s3,
            gcs or cls.gcs_file,
            section.get("storageSpecSecretName") or cls.spec_source,
            section.get("storageSecretNameAnnotation") or cls.named_by,
        )

    def key_names(self) -> dict[str, str]:
        """What the fetching process must know of it: names of keys that are not the usual ones."""
        usual = {"s3AccessKeyIDName": "AWS_ACCESS_KEY_ID", "s3SecretAccessKeyName": "AWS_SECRET_ACCESS_KEY"}
        found = {key: self.s3[key] for key, name in usual.items() if self.s3.get(key, name) != name}
        return (
            found if self.gcs_file == CredentialConfig.gcs_file else {**found, "gcsCredentialFileName": self.gcs_file}
        )


@dataclass(frozen=True)
class SecretReference:
    """A Secret with credentials, and what its annotations (else the configuration) say beside its keys."""

    name: str
    s3: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Credentials:
    """Of one ServiceAccount, for one InferenceService."""

    secrets: tuple[SecretReference, ...] = ()
    s3: Mapping[str, str] = field(default_factory=dict)
    """What the ServiceAccount's own annotations say, where the cloud gives it an identity."""
    config: CredentialConfig = field(default_factory=CredentialConfig)

    def __bool__(self) -> bool:
        return bool(self.secrets or self.s3)

    def with_secrets(self, more: Sequence[str]) -> Credentials:
        known = {secret.name for secret in self.secrets}
        added = tuple(SecretReference(name) for name in dict.fromkeys(more) if name not in known)
        return replace(self, secrets=self.secrets + added)

    def identity(self) -> Open:
        """What makes a revision: which Secrets, and where they are good for."""
        found: Open = {"secrets": [{"name": secret.name, "s3": dict(secret.s3)} for secret in self.secrets]}
        return {**found, "s3": dict(self.s3), "keys": self.config.key_names()}


@dataclass(frozen=True)
class Given:
    """What a fetching container gets."""

    env: tuple[Open, ...] = ()
    env_from: tuple[Open, ...] = ()
    mounts: tuple[Open, ...] = ()
    volumes: tuple[Open, ...] = ()

    def __add__(self, other: Given) -> Given:
        return Given(
            self.env + other.env,
            self.env_from + other.env_from,
            self.mounts + other.mounts,
            self.volumes + other.volumes,
        )


def secret_names(
    account: Mapping[str, Any] | None, annotations: Mapping[str, str], config: CredentialConfig
) -> list[str]:
    """The Secrets that hold a service's credentials: the one that its annotation names, else those of the ServiceAccount."""
    named = annotations.get(config.named_by)
    if named:
        return [named]
    return [entry["name"] for entry in (account or {}).get("secrets") or () if entry.get("name")]


def s3_environment(annotations: Mapping[str, str], config: CredentialConfig) -> dict[str, str]:
    """Where S3 is and how it is spoken to: each an annotation's word, else the configuration's."""
    own = {key.removeprefix(f"{names.SERVING_GROUP}/"): value for key, value in annotations.items()}
    found = {}
    if "s3-endpoint" in own:
        found = {"S3_ENDPOINT": own["s3-endpoint"], "S3_USE_HTTPS": own.get("s3-usehttps", "")}
    elif config.s3.get("s3Endpoint"):
        found = {"S3_ENDPOINT": config.s3["s3Endpoint"], "S3_USE_HTTPS": config.s3.get("s3UseHttps", "")}
    if found:
        plain = "http" if found["S3_USE_HTTPS"] == "0" else "https"
        endpoint = found["S3_ENDPOINT"]
        found["AWS_ENDPOINT_URL"] = endpoint if "://" in endpoint else f"{plain}://{endpoint}"
    for annotation, (key, variable) in _S3.items():
        found[variable] = own.get(annotation, config.s3.get(key, ""))
    return {variable: value for variable, value in found.items() if value}


def for_our_fetcher(credentials: Credentials) -> Given:
    """References under a prefix, a number for each Secret, so that neither they nor the model server's own variables get mixed up."""
    env: list[Open] = []
    env_from: list[Open] = []
    for number, secret in enumerate(credentials.secrets):
        prefix = f"{names.FETCH_ENV_PREFIX}{number}_"
        env_from.append({"prefix": prefix, "secretRef": {"name": secret.name, "optional": True}})
        env += [{"name": prefix + name, "value": value} for name, value in secret.s3.items()]
    env += [{"name": names.FETCH_ENV_PREFIX + name, "value": value} for name, value in credentials.s3.items()]
    if credentials.secrets and credentials.config.key_names():
        env.append({"name": names.FETCH_KEY_NAMES_ENV, "value": json.dumps(credentials.config.key_names())})
    return Given(tuple(env), tuple(env_from)) + _ca_bundle(credentials)


def for_any_fetcher(credentials: Credentials) -> Given:
    """The usual variables, for a container that is not ours: all keys as they are, and Google's file, if the first Secret has it, where KServe mounts it."""
    env: list[Open] = [{"name": name, "value": value} for name, value in credentials.s3.items()]
    mounts: list[Open] = []
    volumes: list[Open] = []
    for secret in credentials.secrets:
        env += [{"name": name, "value": value} for name, value in secret.s3.items()]
        for variable, key in (
            ("AWS_ACCESS_KEY_ID", "s3AccessKeyIDName"),
            ("AWS_SECRET_ACCESS_KEY", "s3SecretAccessKeyName"),
        ):
            if (renamed := credentials.config.s3.get(key, variable)) != variable:
                env.append({"name": variable, "valueFrom": _key(secret.name, renamed)})
    if credentials.secrets:
        # Only one of them can be at the place that the variable names, and which has the file cannot be told from here.
        file, first = credentials.config.gcs_file, credentials.secrets[0].name
        source = {"secretName": first, "items": [{"key": file, "path": file}], "optional": True}
        volumes.append({"name": _GCS_VOLUME, "secret": source})
        mounts.append({"name": _GCS_VOLUME, "mountPath": _GCS_DIRECTORY, "readOnly": True})
        env.append({"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": f"{_GCS_DIRECTORY}/{file}"})
    env_from = [{"secretRef": {"name": secret.name, "optional": True}} for secret in credentials.secrets]
    return Given(tuple(env), tuple(env_from), tuple(mounts), tuple(volumes)) + _ca_bundle(credentials)


def for_storage_spec(spec: StorageSpec, secret: str, *, prefix: str) -> Given:
    """The entry of `storage-config` that `storage.key` names, else the default one, which need not be there."""
    parameters = dict(spec.parameters or {})
    kind = parameters.get("type")
    key = spec.key or (f"{_DEFAULT_KEY}_{kind}" if kind else _DEFAULT_KEY)
    reference = _key(secret, key, optional=not spec.key)
    env: list[Open] = [{"name": f"{prefix}STORAGE_CONFIG", "valueFrom": reference}]
    if parameters:
        env.append({"name": f"{prefix}STORAGE_OVERRIDE_CONFIG", "value": json.dumps(parameters, sort_keys=True)})
    return Given(tuple(env))


def storage_spec_uri(spec: StorageSpec) -> str | None:
    """The address that `storage.path` means; what only the Secret knows of it stays open. Raises InvalidPredictorSpec."""
    parameters = spec.parameters or {}
    kind, bucket = parameters.get("type"), parameters.get("bucket")
    if kind is not None and kind not in STORAGE_TYPES:
        raise InvalidPredictorSpec(f"storage.parameters.type {kind!r} is not supported; {', '.join(STORAGE_TYPES)} are")
    if spec.path is None:
        return None
    path = spec.path.lstrip("/")
    if kind in ("s3", "gs") and bucket:
        return f"{kind}://{bucket}/{path}"
    return names.STORAGE_SPEC_PLACEHOLDER + path


def _ca_bundle(credentials: Credentials) -> Given:
    told = [secret.s3 for secret in credentials.secrets] + [credentials.s3]
    config_map = next((s3["AWS_CA_BUNDLE_CONFIGMAP"] for s3 in told if "AWS_CA_BUNDLE_CONFIGMAP" in s3), None)
    if config_map is None:
        return Given()
    bundle = next((s3["AWS_CA_BUNDLE"] for s3 in told if "AWS_CA_BUNDLE" in s3), None)
    directory = bundle.rpartition("/")[0] if bundle else CA_BUNDLE_DIRECTORY
    return Given(
        env=(
            {"name": "CA_BUNDLE_CONFIGMAP_NAME", "value": config_map},
            {"name": "CA_BUNDLE_VOLUME_MOUNT_POINT", "value": directory},
        ),
        mounts=({"name": CA_BUNDLE_VOLUME, "mountPath": directory, "readOnly": True},),
        volumes=({"name": CA_BUNDLE_VOLUME, "configMap": {"name": config_map}},),
    )


def _key(secret: str, key: str, *, optional: bool = True) -> Open:
    return {"secretKeyRef": {"name": secret, "key": key, "optional": optional}}


def account_name(fields: Mapping[str, Any]) -> str:
    """The ServiceAccount of pods with these PodSpec fields."""
    return str(fields.get("serviceAccountName") or fields.get("serviceAccount") or "default")
