"""The private name of gRPC that Phantoms uses (read at 1.85.3). Without it an idle code server only wakes up more often."""

from __future__ import annotations

import importlib
import logging

_log = logging.getLogger(__name__)


def wait_calmly(seconds: float) -> bool:
    """Make a thread that waits for a gRPC server to end wake up every `seconds` instead of ten times a second.

    Return whether that was possible. Signals still reach a waiting thread at once.
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
