"""The state of a folder with media files: whether it is mounted and usable, and whether an error is the folder's fault.

A full disk, a missing mount or a dead NFS server says nothing about a video. This module alone decides which errors are of that
kind. `wiring.media_gate` decides who waits, and for how long.
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
# ffmpeg reports no errno. A ProviderError with this code means that its output did not fit on the disk.
FULL_CODE = "disk full"

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# A single damaged file may cause these too, so the folder is checked before it is blamed.
_SUSPICIOUS = frozenset(
    {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN, errno.EACCES, errno.EPERM, errno.ENOENT}
)
# A disk with less free space than this counts as full. On a small disk, a fiftieth of its size.
_LEAST_FREE_BYTES = 16 << 20
_LEAST_FREE_SHARE = 50
_LONGEST_CHAIN = 10


class Disk:
    """The folder `root`. `what` is its name in messages (`media folder`). `marked`: a marker file shows that it is mounted."""

    def __init__(self, root: Path, *, what: str, marked: bool) -> None:
        self.root = root.absolute()
        self.what = what
        self.marked = marked

    def is_there(self) -> bool:
        """Whether the marker file exists. True for an unmarked folder. Raises MediaAway when the folder cannot be read."""
        try:
            return (self.root / MARKER).exists() if self.marked else True
        except OSError as error:
            raise self._unavailable(error) from error

    def identify(self, *, known: bool) -> None:
        """Create the folder and its marker unless they exist. `known`: files were stored in the folder before.

        A folder with files but without a marker was made by an earlier version and gets one. Raises MediaAway, and writes nothing,
        when the folder should hold files but is empty: then its file system is not mounted.
        """
        if not self.marked or self.is_there():
            return
        try:
            if known and not _holds_files(self.root):
                raise MediaAway(
                    f"the {self.what} {self.root} is not mounted: it is empty, but files were stored in it. Mount it. If it is "
                    f"empty on purpose, create the file {self.root / MARKER}",
                    reading=True,
                )
            self._make_root()
            _write_whole(self.root / MARKER, _MARKER_TEXT.encode())
        except OSError as error:
            raise self._unavailable(error) from error

    def _make_root(self) -> None:
        # Other users of the machine must not see videos before they are published. A folder that exists keeps its mode.
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def check_usable(self, *, writing: bool) -> None:
        """Check the folder: its marker, reading it and, with `writing`, writing some bytes to the disk.

        Raises MediaAway with the reason.
        """
        if not self.is_there():
            raise MediaAway(
                f"the {self.what} {self.root} is not mounted: the file {MARKER} is missing in it. Mount it, or create that file",
                reading=True,
            )
        try:
            self._make_root()
            _try_reading(self.root)
        except OSError as error:
            raise self._unavailable(error) from error
        if not writing:
            return
        try:
            _try_writing(self.root)
        except OSError as error:
            raise self._unavailable(error, reading=False) from error
        if _too_full(self.root) or _full_temporary(self.root) is not None:
            raise self._full(errno.ENOSPC)

    def diagnose(self, error: BaseException) -> MediaAway | None:
        """The folder's failure behind `error`; None when the folder did not cause it."""
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
            self.check_usable(writing=not isinstance(error, NotFound))
        except MediaAway as found:
            return found
        return None

    def as_transient(self, error: BaseException) -> Transient | None:
        """An OSError of a usable folder as a Transient, which fails one try only. None for any other error."""
        if not isinstance(error, OSError) or error.errno not in _SUSPICIOUS - {errno.ENOENT}:
            return None
        return Transient(f"a file could not be used: {error}", provider=PROVIDER, code=errno.errorcode[error.errno or 0])

    def _unavailable(self, error: OSError, *, reading: bool = True) -> MediaAway:
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
    """The error and its causes."""
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
    """The folder for temporary files, if it is on another disk than `root` and that disk is full. Renders need it too.

    TMPDIR comes before `tempfile`: on a full disk `tempfile` finds no folder, or silently chooses another one.
    """
    try:
        folder = Path(os.environ.get("TMPDIR") or tempfile.gettempdir()).absolute()
        return folder if folder.stat().st_dev != root.stat().st_dev and _too_full(folder) else None
    except OSError:
        return None


def _holds_files(root: Path) -> bool:
    """Whether the folder has a subfolder named as `FolderStore` names them."""
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
