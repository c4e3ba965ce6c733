"""The state of one folder in which files are kept: whether it is the folder it was, and what an error says about it.

A full disk, a missing mount or a dead NFS server says nothing about a video. Which errors are of that kind is decided here and
nowhere else. Who waits, and for how long, belongs to `wiring.media_gate`.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from phantoms_dagster.domain.errors import MediaAway, NotFound, ProviderError, Transient

PROVIDER = "media"
MARKER = ".phantoms-media"
_MARKER_TEXT = (
    "Phantoms keeps its media in this folder. While this file is missing, Phantoms takes the folder for an empty mount point.\n"
)
# ffmpeg says no number: this code of a ProviderError means that its output did not fit.
FULL_CODE = "disk full"

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a damaged single file may cause as well: the folder is tried before it is blamed.
_SUSPICIOUS = frozenset(
    {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN, errno.EACCES, errno.EPERM, errno.ENOENT}
)
# Below this a disk counts as full, whatever ffmpeg made of it. Of a small disk: a fiftieth.
_LEAST_FREE_BYTES = 16 << 20
_LEAST_FREE_SHARE = 50
_LONGEST_CHAIN = 10


class Disk:
    """The folder `root`; `what` names it in messages (`media folder`). `marked`: it is known by the marker file in it."""

    def __init__(self, root: Path, *, what: str, marked: bool) -> None:
        self.root = root.absolute()
        self.what = what
        self.marked = marked

    def is_there(self) -> bool:
        """Whether the marker is there. Raises MediaAway when the folder cannot be looked at."""
        try:
            return (self.root / MARKER).exists() if self.marked else True
        except OSError as error:
            raise self._away(error) from error

    def identify(self, *, known: bool) -> None:
        """Make the folder and its marker, unless that would be wrong. `known`: files were stored in it before.

        A folder with stored files that has no marker was made by an earlier version, and gets one. Raises MediaAway when the
        folder should hold files and is empty: its file system is not mounted. Then nothing is written.
        """
        if not self.marked or self.is_there():
            return
        try:
            if known and not _holds_files(self.root):
                raise MediaAway(
                    f"the {self.what} {self.root} is not mounted: it is empty, but files were stored in it. Mount it. If it is "
                    f"empty on purpose, make the file {self.root / MARKER}",
                    reading=True,
                )
            self.root.mkdir(parents=True, exist_ok=True)
            _write_whole(self.root / MARKER, _MARKER_TEXT.encode())
        except OSError as error:
            raise self._away(error) from error

    def try_it(self, *, writing: bool) -> None:
        """Find out whether the folder can be used: its marker, and for `writing` some bytes that go down to the disk.

        Raises MediaAway with the reason.
        """
        if not self.is_there():
            raise MediaAway(
                f"the {self.what} {self.root} is not mounted: the file {MARKER} is missing in it. Mount it, or make that file",
                reading=True,
            )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            _try_reading(self.root)
        except OSError as error:
            raise self._away(error) from error
        if not writing:
            return
        try:
            _try_writing(self.root)
        except OSError as error:
            raise self._away(error, reading=False) from error
        if _too_full(self.root) or _full_temporary(self.root) is not None:
            raise self._full(errno.ENOSPC)

    def complaint(self, error: BaseException) -> MediaAway | None:
        """What `error` says about the folder; None: nothing, it is the video's own or somebody else's."""
        if isinstance(error, MediaAway):
            return error
        numbers = {number for link in _chain(error) if isinstance(number := getattr(link, "errno", None), int)}
        if full := numbers & _FULL:
            return self._full(min(full))
        if errno.EROFS in numbers:
            return self._read_only()
        ours = isinstance(error, ProviderError) and error.provider == PROVIDER
        if ours and getattr(error, "code", None) == FULL_CODE:
            return self._full(errno.ENOSPC)
        if not (ours or isinstance(error, NotFound) or numbers & _SUSPICIOUS):
            return None
        try:
            self.try_it(writing=not isinstance(error, NotFound))
        except MediaAway as found:
            return found
        return None

    def passing(self, error: BaseException) -> Transient | None:
        """An OSError of a folder that is fine otherwise, as the failure of one try; None for any other error."""
        if not isinstance(error, OSError) or error.errno not in _SUSPICIOUS - {errno.ENOENT}:
            return None
        return Transient(f"a file could not be used: {error}", provider=PROVIDER, code=errno.errorcode[error.errno or 0])

    def _away(self, error: OSError, *, reading: bool = True) -> MediaAway:
        if error.errno in _FULL:
            return self._full(error.errno)
        if error.errno == errno.EROFS:
            return self._read_only()
        use = "used" if reading else "written"
        return MediaAway(f"the {self.what} {self.root} cannot be {use}: {error.strerror or error}", reading=reading)

    def _read_only(self) -> MediaAway:
        return MediaAway(f"the {self.what} {self.root} is mounted read-only", reading=False)

    def _full(self, number: int | None) -> MediaAway:
        if number == errno.EDQUOT:
            return MediaAway(f"the quota for the {self.what} {self.root} is used up", reading=False)
        try:
            temporary = None if _too_full(self.root) else _full_temporary(self.root)
            folder, what = (self.root, self.what) if temporary is None else (temporary, "folder for temporary files (TMPDIR)")
            return MediaAway(f"the {what} {folder} is full: {shutil.disk_usage(folder).free:,} bytes free", reading=False)
        except OSError:
            return MediaAway(f"the {self.what} {self.root} is full", reading=False)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from."""
    link: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if link is None:
            return
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _too_full(folder: Path) -> bool:
    usage = shutil.disk_usage(folder)
    return usage.free < min(_LEAST_FREE_BYTES, usage.total // _LEAST_FREE_SHARE)


def _full_temporary(root: Path) -> Path | None:
    """The folder for temporary files, when it is on another disk than `root` and that disk is full. Renders need it, too.

    `tempfile` is not asked first: on a full disk it finds no folder at all, or silently another one.
    """
    try:
        folder = Path(os.environ.get("TMPDIR") or tempfile.gettempdir()).absolute()
        return folder if folder.stat().st_dev != root.stat().st_dev and _too_full(folder) else None
    except OSError:
        return None


def _holds_files(root: Path) -> bool:
    """Whether there is a folder of hashes, as `FolderStore` makes them."""
    try:
        return any(len(path.name) == 2 and path.is_dir() for path in root.iterdir())
    except FileNotFoundError:
        return False


def _try_reading(root: Path) -> None:
    os.scandir(root).close()


def _try_writing(root: Path) -> None:
    path = root / f".phantoms-probe-{uuid.uuid4().hex[:8]}"
    try:
        with path.open("xb") as file:
            file.write(b"\0" * 65_536)
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)


def _write_whole(path: Path, data: bytes) -> None:
    fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with fresh.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
