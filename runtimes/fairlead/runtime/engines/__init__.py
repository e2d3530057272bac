"""Engines run the server: `process` in this process (or several), `ray` as replicas of a Ray Serve application."""

from __future__ import annotations

from fairlead.runtime.engines.base import Engine
from fairlead.runtime.engines.selection import choose, memory_limit, ray_installed
from fairlead.runtime.settings import Settings

__all__ = ["Engine", "select"]


def select(settings: Settings) -> tuple[Engine, str]:
    """The engine to run, and why it is this one."""
    name, why = choose(settings.engine, ray_installed=ray_installed(), memory_limit=memory_limit())
    if name == "ray":
        from fairlead.runtime.engines.ray import RayEngine

        return RayEngine(), why
    from fairlead.runtime.engines.process import ProcessEngine

    return ProcessEngine(), why
