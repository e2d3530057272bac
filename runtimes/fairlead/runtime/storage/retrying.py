"""Another try, after a pause that grows, where a store has stumbled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from fairlead.runtime.storage.base import FetchOptions
from fairlead.runtime.storage.errors import StorageError, TransientError

T = TypeVar("T")
LONGEST_PAUSE = 30.0


def retrying(options: FetchOptions, translated: Callable[[Exception], Exception], action: Callable[[], T]) -> T:
    """What `action` returns. Raises StorageError: its own, or what `translated` makes of a library's; only a TransientError is tried again."""

    def told() -> T:
        try:
            return action()
        except StorageError:
            raise
        except Exception as error:
            raise translated(error) from error

    return Retrying(
        stop=stop_after_attempt(options.attempts),
        wait=wait_random_exponential(multiplier=options.backoff, max=LONGEST_PAUSE),
        retry=retry_if_exception_type(TransientError),
        reraise=True,
    )(told)
