"""What can keep `fairlead up` from starting, in one line that tells the fix."""

from __future__ import annotations


class UpError(Exception):
    """The message says what was wrong, where, and what to do."""
