"""Logging: JSON or text lines with the video, stage, attempt and run that they concern, and without secrets."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from pydantic import SecretStr

from phantoms_dagster.domain.logs import FIELDS, AboutFilter
from phantoms_dagster.providers.redaction import redact
from phantoms_dagster.settings import Settings
from phantoms_dagster.settings.leaves import leaves

if TYPE_CHECKING:
    from phantoms_dagster.resilience.transport import CallRecord

OURS = "phantoms_dagster"
STANDARD_ERROR = 2
# Shorter secrets are words such as `sandbox`, which may occur anywhere.
_SHORTEST_SECRET = 8
_PASSWORD_IN_URL = re.compile(r"(://[^\s:/@]*:)[^\s@]+@")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_calls = logging.getLogger(f"{OURS}.calls")


def configure(settings: Settings) -> None:
    """Write this process's log to standard error, as the settings say. A later call replaces the settings.

    Our own lines are written from `log_level` on, those of other libraries from WARNING on.
    """
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _StandardError)]:
        root.removeHandler(handler)
    handler = _StandardError()
    handler.addFilter(AboutFilter())
    handler.addFilter(RedactingFilter(_secrets(settings)))
    handler.setFormatter(JsonFormatter() if settings.logs.format == "json" else TextFormatter())
    root.addHandler(handler)
    logging.getLogger(OURS).setLevel(settings.logs.level)


@contextmanager
def also_to_the_console() -> Iterator[None]:
    """Within the block, also write our lines to the present standard error, even while it is redirected."""
    if sys.stderr.fileno() != STANDARD_ERROR or _StandardError.console is not None:
        yield
        return
    sys.stderr.flush()
    with os.fdopen(os.dup(STANDARD_ERROR), "w", encoding="utf-8", errors="replace") as console:
        _StandardError.console = console
        try:
            yield
        finally:
            _StandardError.console = None


def log_call(call: CallRecord) -> None:
    """Log one line per call to a provider, at DEBUG. This is the observer for `guarded_clients`."""
    if not _calls.isEnabledFor(logging.DEBUG):
        return
    status = "" if call.status is None else f" {call.status}"
    _calls.debug(
        "%s %s %s%s in %.3f s",
        call.method,
        call.host,
        call.outcome,
        status,
        call.seconds,
        extra={
            "integration": call.scope.integration,
            "account": call.scope.account,
            "pool": call.scope.pool,
            "sandbox": call.scope.sandbox,
            "host": call.host,
            "status": call.status,
            "outcome": call.outcome,
            "why": call.why or None,
            "seconds": round(call.seconds, 6),
            "waited": round(call.waited, 6),
        },
    )


class RedactingFilter(logging.Filter):
    """Removes tokens, signatures, passwords in URLs and `secrets` from a record's message, extra fields and traceback.

    It changes the record itself, so that all later handlers are safe too.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        found = sorted({s for s in secrets if len(s) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, found))) if found else None

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record. Always True."""
        record.msg, record.args = self._clean(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._clean(record.exc_text)
        if record.stack_info:
            record.stack_info = self._clean(record.stack_info)
        for name, value in _extra(record):
            setattr(record, name, self._clean_value(value))
        return True

    def _clean(self, text: str) -> str:
        text = _PASSWORD_IN_URL.sub(r"\1***@", redact(text))
        return self._secrets.sub("***", text) if self._secrets else text

    def _clean_value(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._clean(value if isinstance(value, str) else repr(value))


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, the fields of the context, and those of `extra=`."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in _extra(record) if value is not None},
        }
        if trace := _traceback(self, record):
            line["exception"] = trace
        return json.dumps(line, ensure_ascii=False, default=repr)


class TextFormatter(logging.Formatter):
    """For people: time, level, logger and message, then the fields of the context and of `extra=` as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        fields = "".join(f" {name}={value}" for name, value in _extra(record) if value is not None)
        line = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}{fields}"
        trace = _traceback(self, record)
        return f"{line}\n{trace}" if trace else line


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to the current standard error, which Dagster and pytest replace by other files."""

    console: ClassVar[TextIO | None] = None

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, and also to the console while standard error is redirected into a step's file."""
        super().emit(record)
        if self.console is not None:
            try:
                self.console.write(self.format(record) + self.terminator)
                self.console.flush()
            except OSError:
                self.handleError(record)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def _extra(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """The fields that the context and `extra=` added to the record, the context's first."""
    given = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    for name in FIELDS:
        if name in given:
            yield name, given.pop(name)
    yield from given.items()


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    trace = record.exc_text or (formatter.formatException(record.exc_info) if record.exc_info else "")
    return "\n".join(part for part in (trace, record.stack_info) if part)


def _secrets(settings: Settings) -> Iterator[str]:
    """Keys and tokens. Passwords in URLs are found by their position instead, because one may be a word like `postgres`."""
    for leaf in leaves(Settings).values():
        value = leaf.value(settings)
        if isinstance(value, SecretStr) and not leaf.name.endswith("_url"):
            yield value.get_secret_value()
