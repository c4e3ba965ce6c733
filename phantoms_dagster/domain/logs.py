"""Log context: the video, stage, attempt and run that the current task works for, and the filter that adds them to log records.

`wiring.logs` has the formats and destinations.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

FIELDS = ("run_id", "stage", "video", "attempt")

_about: ContextVar[Mapping[str, str]] = ContextVar("phantoms_log_about", default=MappingProxyType({}))


@contextmanager
def about(
    *, run_id: str | None = None, stage: str | None = None, video: str | None = None, attempt: str | None = None
) -> Iterator[None]:
    """Add these fields to all log lines written inside the block, by this task and the tasks it starts."""
    given = {"run_id": run_id, "stage": stage, "video": video, "attempt": attempt}
    token = _about.set(MappingProxyType({**_about.get(), **{name: value for name, value in given.items() if value is not None}}))
    try:
        yield
    finally:
        _about.reset(token)


def current() -> Mapping[str, str]:
    """The current fields, in the order of `FIELDS`. Fields without a value are absent."""
    known = _about.get()
    return {name: known[name] for name in FIELDS if name in known}


class AboutFilter(logging.Filter):
    """Sets the fields on each record as attributes of the same names. A field given by `extra=` takes precedence."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record through."""
        for name, value in _about.get().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True
