"""The private name of gRPC that Phantoms uses (read at 1.85.3). Without it nothing is lost but calm: see `wait_calmly`."""

from __future__ import annotations

import importlib
import logging

_log = logging.getLogger(__name__)


def wait_calmly(seconds: float) -> bool:
    """Let a thread that waits for the end of a gRPC server wake up as rarely as this. gRPC wakes it ten times a second, all day.

    The answer is whether it could be set. Python hands signals to a waiting thread at once either way.
    """
    try:
        common = importlib.import_module("grpc._common")
        known = isinstance(common.MAXIMUM_WAIT_TIMEOUT, int | float)
    except (ImportError, AttributeError):
        known = False
    if not known:
        _log.warning("this gRPC has no grpc._common.MAXIMUM_WAIT_TIMEOUT: an idle code server wakes up ten times a second")
        return False
    setattr(common, "MAXIMUM_WAIT_TIMEOUT", seconds)  # noqa: B010
    return True
