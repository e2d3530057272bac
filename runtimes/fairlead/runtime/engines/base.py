"""What an engine is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from fairlead.runtime.settings import Settings


class Engine(ABC):
    """Runs the models that the settings name behind both doors, until SIGTERM or SIGINT.

    The answers do not depend on the engine: each runs `fairlead.runtime.server.ModelServer`.
    """

    name: ClassVar[str]

    @abstractmethod
    def run(self, settings: Settings) -> None:
        """Blocks. Raises LoadError if the models cannot be loaded, OSError if a port cannot be bound."""
