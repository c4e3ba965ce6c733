"""Ties the life of a forked process to its parent's."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with(parent: int, death_signal: signal.Signals = signal.SIGKILL) -> None:
    """Let the kernel send this process that signal when `parent`, which has just forked it, is gone.

    Only Linux does that; elsewhere the process must ask `orphaned` itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if orphaned(parent):
        # It died before the kernel knew.
        os._exit(1)


def orphaned(parent: int) -> bool:
    """Whether this process has another parent than it began with."""
    return os.getppid() != parent
