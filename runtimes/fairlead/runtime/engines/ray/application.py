"""The Serve application of the settings' models."""

from __future__ import annotations

from typing import Any

from fairlead.runtime.engines.front import ReplicaPorts
from fairlead.runtime.frameworks import detect
from fairlead.runtime.pipeline import Pipeline
from fairlead.runtime.settings import Settings
from fairlead.runtime.sources import open_model

NAME = "fairlead"


def application(settings: Settings, ports: list[ReplicaPorts], *, pods: int = 1) -> Any:
    """The server's deployment, and one for each step if the model is a pipeline.

    Over several pods, each has one replica of the server, on the same ports, with a pipeline's steps in it: no request depends on another pod.
    """
    from ray import serve

    from fairlead.runtime.engines.ray.replica import ServerReplica, StepReplica

    deployment: Any = serve.deployment
    options: dict[str, Any] = {
        "ray_actor_options": {"num_cpus": 0, "num_gpus": settings.num_gpus},
        "max_ongoing_requests": settings.max_queue,
        "health_check_period_s": 1,
        "logging_config": {"enable_access_log": False},
        "graceful_shutdown_wait_loop_s": 0.1,
        "graceful_shutdown_timeout_s": settings.seconds_to_end + 5,
    }
    steps = [
        deployment(StepReplica, name=name, num_replicas=1, **options).bind(settings, index)
        for index, name in enumerate(pipeline_steps(settings) if pods == 1 else ())
    ]
    if pods > 1:
        options |= {"num_replicas": pods, "max_replicas_per_node": 1}
    replica = deployment(ServerReplica, name=settings.model_name, **{"num_replicas": len(ports), **options})
    return replica.bind(settings, ports, *steps)


def pipeline_steps(settings: Settings) -> list[str]:
    """The names of a pipeline's steps; none for any other model. Only a class can be one: frameworks stay unimported here."""
    if settings.repository_dir is not None:
        return []
    if settings.model_class is None and detect(settings.model_dir, settings.framework)[1].framework != "custom":
        return []
    model = open_model(settings.model_dir, settings.model_name, settings)
    return model.step_names() if isinstance(model, Pipeline) else []


def users_application(settings: Settings) -> Any:
    """The user's own Serve application, if that is what `model_class` names."""
    if settings.model_class is None or settings.model_class.endswith(".py"):
        return None
    from ray.serve import Application

    from fairlead.runtime.frameworks.custom import resolve

    target = resolve(settings.model_class)
    return target if isinstance(target, Application) else None
