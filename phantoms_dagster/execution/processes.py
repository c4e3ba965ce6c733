"""Ties the life of a forked process to its parent's."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with(parent: int, death_signal: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when `parent`, which has just forked it, dies.

    This works only on Linux. Elsewhere the process must call `orphaned` itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if orphaned(parent):
        # The parent died before the request reached the kernel.
        os._exit(1)


def orphaned(parent: int) -> bool:
    """Whether the original parent of this process is gone."""
    return os.getppid() != parent
