"""Writes manifests/crds from the API types: `python -m fairlead.api.crd`, or with `--check` fails when they are stale."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fairlead.api import names
from fairlead.api.base import ApiObject
from fairlead.api.inferenceservice import InferenceService
from fairlead.api.schema import structural_schema
from fairlead.api.servingruntime import ClusterServingRuntime, ServingRuntime
from fairlead.api.storagecontainer import ClusterStorageContainer

DIRECTORY = Path(__file__).parents[3] / "manifests" / "crds"
HEADER = "# Generated from fairlead.api by `make crds`. Do not edit.\n"
MAX_LINE = 140
"""Characters of a mapping that is written on one line."""


class Column(NamedTuple):
    name: str
    type: str
    path: str


_TRAFFIC = ".status.components.predictor.traffic"
_SERVICE_COLUMNS = (
    Column("URL", "string", ".status.url"),
    Column("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
    Column("Prev", "integer", f"{_TRAFFIC}[?(@.tag=='prev')].percent"),
    Column("Latest", "integer", f"{_TRAFFIC}[?(@.latestRevision==true)].percent"),
    Column("PrevRolledoutRevision", "string", f"{_TRAFFIC}[?(@.tag=='prev')].revisionName"),
    Column("LatestReadyRevision", "string", f"{_TRAFFIC}[?(@.latestRevision==true)].revisionName"),
    Column("Age", "date", ".metadata.creationTimestamp"),
)
_RUNTIME_COLUMNS = (
    Column("Disabled", "boolean", ".spec.disabled"),
    Column("ModelType", "string", ".spec.supportedModelFormats[*].name"),
    Column("Containers", "string", ".spec.containers[*].name"),
    Column("Age", "date", ".metadata.creationTimestamp"),
)
_STORAGE_COLUMNS = (
    Column("Disabled", "boolean", ".disabled"),
    Column("Image", "string", ".spec.container.image"),
    Column("Age", "date", ".metadata.creationTimestamp"),
)


class Kind(NamedTuple):
    """One CustomResourceDefinition. None has a scale subresource: what is scaled is the Deployments, not the service."""

    type: type[ApiObject]
    version: str
    plural: str
    columns: tuple[Column, ...]
    namespaced: bool = True
    status: bool = False
    short_names: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        return f"{names.SERVING_GROUP}_{self.plural}.yaml"


KINDS = (
    Kind(
        InferenceService,
        names.INFERENCE_SERVICE_VERSION,
        "inferenceservices",
        _SERVICE_COLUMNS,
        status=True,
        short_names=("isvc",),
    ),
    Kind(ServingRuntime, names.SERVING_RUNTIME_VERSION, "servingruntimes", _RUNTIME_COLUMNS),
    Kind(
        ClusterServingRuntime,
        names.SERVING_RUNTIME_VERSION,
        "clusterservingruntimes",
        _RUNTIME_COLUMNS,
        namespaced=False,
    ),
    Kind(
        ClusterStorageContainer,
        names.SERVING_RUNTIME_VERSION,
        "clusterstoragecontainers",
        _STORAGE_COLUMNS,
        namespaced=False,
    ),
)


def custom_resource_definition(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of `kind`, as `kubectl apply` takes it."""
    schema_names = {"kind": kind.type.__name__, "listKind": f"{kind.type.__name__}List", "plural": kind.plural}
    version = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [
            {"name": column.name, "type": column.type, "jsonPath": column.path} for column in kind.columns
        ],
        "schema": {"openAPIV3Schema": structural_schema(kind.type)},
    }
    if kind.status:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{names.SERVING_GROUP}",
            "annotations": {names.CRD_VERSION: names.VERSION},
        },
        "spec": {
            "group": names.SERVING_GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                **schema_names,
                "singular": kind.type.__name__.lower(),
                "categories": ["fairlead"],
                **({"shortNames": list(kind.short_names)} if kind.short_names else {}),
            },
            "versions": [version],
        },
    }


class _Dumper(yaml.SafeDumper):
    """Small mappings on one line, which halves the file; no anchors, which `kubectl` takes but people do not."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, flow_style=len(str(mapping)) <= MAX_LINE)


def render(kind: Kind) -> str:
    """The YAML file of `kind`."""
    document = custom_resource_definition(kind)
    return HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=10_000)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fairlead.api.crd", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    parser.add_argument("--directory", type=Path, default=DIRECTORY)
    options = parser.parse_args(arguments)
    files = {options.directory / kind.file_name: render(kind) for kind in KINDS}
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if options.check:
        for path in stale:
            sys.stderr.write(f"{path} is stale: run `make crds` and commit it\n")
        return 1 if stale else 0
    options.directory.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(files[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
