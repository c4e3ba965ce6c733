"""What a log line is about: the video, stage, attempt and run that the running task works for.

Only the context and the filter that puts it on records belong here; formats and where lines go belong to `wiring.logs`.
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
    """Log lines written inside, by this task and those it starts, carry these fields on top of the outer ones."""
    given = {"run_id": run_id, "stage": stage, "video": video, "attempt": attempt}
    token = _about.set(MappingProxyType({**_about.get(), **{name: value for name, value in given.items() if value is not None}}))
    try:
        yield
    finally:
        _about.reset(token)


def current() -> Mapping[str, str]:
    """The fields in force, in the order of `FIELDS`; those that nobody said are absent."""
    known = _about.get()
    return {name: known[name] for name in FIELDS if name in known}


class AboutFilter(logging.Filter):
    """Puts the fields on each record as attributes of the same names. A field given by `extra=` wins."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record through."""
        for name, value in _about.get().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True
