"""Chooses the account under which PostgreSQL runs, because PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.embedded.processes import SAME, ProcessIdentity, command

RootStrategy = Literal["auto", "namespace", "nobody"]
SET_THE_URLS = "Or run your own servers and set PHANTOMS_DATABASE_URL and PHANTOMS_REDIS_URL."


def postgres_identity(strategy: RootStrategy) -> ProcessIdentity:
    """The identity for PostgreSQL. An ordinary user stays the same.

    Root, or a user id without an account (which initdb refuses), runs as `nobody` in a user namespace; files need not change their
    owner for that. If the kernel refuses namespaces, root becomes `nobody`. `strategy` forces one of the two ways. Raises
    InvalidInput when neither works.
    """
    root = os.geteuid() == 0
    if not root and _has_account(os.geteuid()):
        return SAME
    uid, gid = _unprivileged_account()
    ways = []
    if strategy in ("auto", "namespace") and sys.platform == "linux":
        ways.append(ProcessIdentity("namespace", uid, gid))
    if strategy in ("auto", "nobody") and root:
        ways.append(ProcessIdentity("become", uid, gid))
    refusals = []
    for identity in ways:
        refusal = _refusal(identity)
        if refusal is None:
            return identity
        refusals.append(refusal)
    who = "root" if root else f"user id {os.geteuid()}, which has no account"
    raise InvalidInput(
        f"PostgreSQL cannot run as {who}, and this system allows no workaround ({'; '.join(refusals)}). "
        f"Start Phantoms as an ordinary user. {SET_THE_URLS}"
    )


def can_execute(program: Path, identity: ProcessIdentity) -> bool:
    """Whether that identity can execute the program: it answers `--version`."""
    tried = subprocess.run(
        command([str(program), "--version"], death_signal=signal.SIGKILL, identity=identity),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        cwd="/",
    )
    return tried.returncode == 0


def _has_account(uid: int) -> bool:
    import pwd  # noqa: PLC0415 - absent on Windows

    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _unprivileged_account() -> tuple[int, int]:
    """The ids of `nobody`, else of any account except root.

    A named account is needed, because PostgreSQL looks up its user's name.
    """
    import pwd  # noqa: PLC0415 - absent on Windows

    for account in sorted(pwd.getpwall(), key=lambda a: (a.pw_name != "nobody", a.pw_uid)):
        if account.pw_uid != 0:
            return account.pw_uid, account.pw_gid
    raise InvalidInput(f"PostgreSQL cannot run as root and there is no other account: add one (useradd nobody). {SET_THE_URLS}")


def _refusal(identity: ProcessIdentity) -> str | None:
    tried = subprocess.run(
        command([], death_signal=signal.SIGKILL, identity=identity),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    return None if tried.returncode == 0 else tried.stderr.strip() or f"exit code {tried.returncode}"
