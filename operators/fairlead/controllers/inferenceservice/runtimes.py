"""Which ServingRuntime serves a model, by KServe's rules.

A runtime named in the spec is looked up in the namespace, then in the cluster. Else, of those that are enabled, speak the protocol and offer the
format with `autoSelect`, the namespace's come before the cluster's, a higher `priority` before a lower, a newer before an older.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fairlead.api.predictor import ModelSpec
from fairlead.api.servingruntime import ClusterServingRuntime, ServingRuntime, SupportedModelFormat
from fairlead.controllers.inferenceservice.errors import NoRuntime

Runtime = ServingRuntime | ClusterServingRuntime


def select(model: ModelSpec, namespaced: Sequence[ServingRuntime], cluster: Sequence[ClusterServingRuntime]) -> Runtime:
    """The runtime for the model. Raises NoRuntime, which says what there is instead."""
    if model.runtime is not None:
        return _named(model.runtime, model, namespaced, cluster)
    for runtimes in (namespaced, cluster):
        able = [runtime for runtime in runtimes if _may_be_chosen(runtime, model)]
        if able:
            newest_first = sorted(able, key=lambda runtime: runtime.metadata.name)
            newest_first.sort(key=_created, reverse=True)
            return max(newest_first, key=lambda runtime: _priority(runtime, model))
    raise NoRuntime(
        "NoSupportingRuntime",
        f"no runtime supports {_wanted(model)}; there is {_offers([*namespaced, *cluster])}. "
        "Name one in model.runtime, or apply a ServingRuntime that offers the format with autoSelect",
    )


def _named(
    name: str, model: ModelSpec, namespaced: Sequence[ServingRuntime], cluster: Sequence[ClusterServingRuntime]
) -> Runtime:
    everything: list[Runtime] = [*namespaced, *cluster]
    runtime = next((runtime for runtime in everything if runtime.metadata.name == name), None)
    if runtime is None:
        there_is = _offers(everything)
        raise NoRuntime(
            "RuntimeNotRecognized", f"there is no ServingRuntime or ClusterServingRuntime {name!r}; there is {there_is}"
        )
    if runtime.spec.disabled:
        raise NoRuntime("RuntimeDisabled", f"{runtime.kind} {name!r} is disabled")
    if not _offered(runtime, model) or not runtime.spec.speaks(model.effective_protocol()):
        raise NoRuntime(
            "NoSupportingRuntime",
            f"{runtime.kind} {name!r} does not support {_wanted(model)}: it is {_offers([runtime])}",
        )
    return runtime


def _may_be_chosen(runtime: Runtime, model: ModelSpec) -> bool:
    spec = runtime.spec
    if spec.disabled or spec.multi_model or not spec.speaks(model.effective_protocol()):
        return False
    return any(offer.auto_select for offer in _offered(runtime, model))


def _offered(runtime: Runtime, model: ModelSpec) -> list[SupportedModelFormat]:
    """A model that names a version needs an offer of just that version; any offer will do for one that names none."""
    wanted = model.model_format
    return [
        offer
        for offer in runtime.spec.supported_model_formats or ()
        if offer.name == wanted.name and wanted.version in (None, offer.version)
    ]


def _priority(runtime: Runtime, model: ModelSpec) -> int:
    return max(offer.priority or 0 for offer in _offered(runtime, model) if offer.auto_select)


def _created(runtime: Runtime) -> str:
    return str((runtime.metadata.model_extra or {}).get("creationTimestamp") or "")


def _wanted(model: ModelSpec) -> str:
    version = f" version {model.model_format.version}" if model.model_format.version else ""
    return f"format {model.model_format.name}{version} with protocol {model.effective_protocol()}"


def _offers(runtimes: Iterable[Runtime]) -> str:
    return ", ".join(map(_offer, runtimes)) or "none at all"


def _offer(runtime: Runtime) -> str:
    formats = [
        (offer.name + (f":{offer.version}" if offer.version else "")) + ("" if offer.auto_select else " (only by name)")
        for offer in runtime.spec.supported_model_formats or ()
    ]
    speaks = f"; {', '.join(runtime.spec.protocol_versions)}" if runtime.spec.protocol_versions else ""
    disabled = "; disabled" if runtime.spec.disabled else ""
    return f"{runtime.metadata.name} ({', '.join(formats) or 'no formats'}{speaks}{disabled})"
