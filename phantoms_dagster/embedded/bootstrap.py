"""The first code in every child: switches to its identity, makes it end with the launcher, and executes the program.

It is run by path with `python -I -S`, so only the standard library is available. It is a separate script and not a `preexec_fn`,
because Python code between fork and exec is unsafe with threads (and warns from 3.12 on).
Usage: bootstrap.py LAUNCHER_PID DEATH_SIGNAL IDENTITY -- [PROGRAM ARGUMENT...]
IDENTITY is `same`, `namespace:UID:GID` or `become:UID:GID`. Without a program it only tries the identity.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

IDENTITY_REFUSED = 125
CANNOT_EXECUTE = 126
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1


def take_identity(identity: str) -> None:
    """Switch to an account that PostgreSQL accepts. In a user namespace the files still belong to the launcher's account."""
    kind, *ids = identity.split(":")
    if kind == "same":
        return
    uid, gid = (int(i) for i in ids)
    if kind == "become":
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        return
    outside_uid, outside_gid = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWUSER)")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {outside_uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {outside_gid} 1")


def die_with(launcher: int, death_signal: int) -> None:
    """Ask the kernel to signal this process when the launcher dies.

    Call it after `take_identity`, which would clear the request.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != launcher:  # it died before the request
        os._exit(1)


def reset_signals() -> None:
    """Reset signals that the launcher ignores or blocks (a shell's `cmd &` ignores SIGINT, Python ignores SIGPIPE)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def main(arguments: list[str]) -> int:
    """Returns an exit code only if something was refused or there is no program to execute."""
    launcher, death_signal, identity, _, *program = arguments
    try:
        take_identity(identity)
    except OSError as error:
        sys.stderr.write(f"cannot become {identity}: {error}\n")
        return IDENTITY_REFUSED
    if not program:
        return 0
    reset_signals()
    die_with(int(launcher), int(death_signal))
    try:
        os.execvp(program[0], program)  # noqa: S606 - without a shell on purpose
    except OSError as error:
        sys.stderr.write(f"cannot execute {program[0]}: {error}\n")
        return CANNOT_EXECUTE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
