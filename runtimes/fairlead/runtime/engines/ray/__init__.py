"""Engine `ray`: the models as a Ray Serve application, whose replicas open the ports themselves.

Serve's own request path (a proxy actor, a router, an actor call) costs several times what a small model does; here a
replica runs the same server as engine `process` in its event loop, and Serve does what it is for: placing replicas on
cores, GPUs and pods, watching them, replacing them, and the calls between the deployments of a pipeline.

    1 replica     client ── replica                     N replicas     client ── HAProxy ── replicas
"""

from __future__ import annotations

from fairlead.runtime.engines.ray.engine import RayEngine

__all__ = ["RayEngine"]
