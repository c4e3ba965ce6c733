"""Posts into a folder: `<outbox>/<account>/<marker>/` with `video.mp4`, `caption.txt` and `post.json`.

The files are written into a folder whose name begins with a dot. `commit` renames that folder, which is atomic. The name is the
post's marker, so a repeat finds the post and does not create a second one.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from phantoms_dagster.domain.errors import NotYet, Permanent, Transient
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, PublishJob
from phantoms_dagster.domain.publication import Finding, Found, Handle, NotPublished, PostRecord, Progress, PublishedPost, RemoteId

PROVIDER = "folder"
VIDEO, CAPTION, FACTS = "video.mp4", "caption.txt", "post.json"
_NO_NAME = re.compile(r"[^\w.-]+|^\.+")

T = TypeVar("T")


class FolderPublisher:
    """Implements `ports.Publisher` with a folder."""

    provider = PROVIDER
    platform = Platform("folder")
    sandbox = False
    account_first = False

    def __init__(self, outbox: Path, *, clock: Clock) -> None:
        self.outbox = outbox
        self.clock = clock

    @asynccontextmanager
    async def verbs(self, job: PublishJob) -> AsyncIterator[FolderPost]:
        """See the port."""
        yield FolderPost(self, job)


class FolderPost:
    """The verbs for one post. See `domain.publication.PublishVerbs`."""

    def __init__(self, publisher: FolderPublisher, job: PublishJob) -> None:
        self._outbox = publisher.outbox
        self._clock = publisher.clock
        self._job = job

    def check(self) -> None:
        """See the port."""
        if self._job.file.stat().st_size != self._job.size:
            message = f"{self._job.file.name} is not the file that was approved: its size differs"
            raise Permanent(message, provider=PROVIDER, code="file_changed")

    async def open(self) -> Handle:
        """Choose the name."""
        return {"account": folder_name(self._job.account), "name": folder_name(self._job.marker)}

    async def upload(self, record: PostRecord) -> Progress | Finding:
        """Write the files next to their final place, replacing what an earlier call left."""
        await self._on_disk(lambda: self._write(self._place(record)))
        return Progress(self._job.size, ready=True)

    async def commit(self, record: PostRecord) -> RemoteId | NotPublished:
        """Rename the folder to its final name."""
        try:
            await self._job.may_go()
        except NotYet as error:
            return NotPublished("the folder was not renamed", then="commit", error=error)
        place = self._place(record)
        if not await self._on_disk(lambda: _move_into_place(_draft(place), place)):
            return NotPublished("the files no longer exist", then="upload")
        return self._remote(record)

    async def find(self, record: PostRecord) -> Finding:
        """Check whether the folder has its final name."""
        if not record.handle:
            return NotPublished("no name was chosen", then="open")
        if await self._on_disk((self._place(record) / FACTS).is_file):
            return Found(self._remote(record))
        return NotPublished(f"there is no folder {self._place(record).name}", then="upload")

    async def confirm(self, record: PostRecord) -> PublishedPost:
        """Read the post's time back. If a person has already moved the folder away, the post counts as published now."""
        place = self._place(record)
        try:
            facts = json.loads(await self._on_disk(lambda: (place / FACTS).read_text(encoding="utf-8")))
            at = datetime.fromisoformat(facts["put_at"])
        except (Transient, ValueError, KeyError, TypeError):
            at = self._clock.now()
        return PublishedPost(str(record.remote_id), place.as_uri(), at)

    # --- the disk

    def _place(self, record: PostRecord) -> Path:
        return self._outbox / str(record.handle["account"]) / str(record.handle["name"])

    def _remote(self, record: PostRecord) -> RemoteId:
        place = self._place(record)
        return RemoteId(f"{place.parent.name}/{place.name}", url=place.as_uri())

    def _write(self, place: Path) -> None:
        job, draft = self._job, _draft(place)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        shutil.copyfile(job.file, draft / VIDEO)
        (draft / CAPTION).write_text(f"{job.title}\n\n{job.caption}\n", encoding="utf-8")
        facts = {
            "video": job.video_key,
            "account": job.account,
            "title": job.title,
            "caption": job.caption,
            "made_for_kids": job.made_for_kids,
            "sha256": job.sha256,
            "size": job.size,
            "put_at": self._clock.now().astimezone(UTC).isoformat(),
        }
        (draft / FACTS).write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        for path in (*draft.iterdir(), draft):
            _flush(path)

    async def _on_disk(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread. Raises Transient for any OSError, such as a full or missing disk."""
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            message = f"the outbox {self._outbox} cannot be used: {error.strerror or error}"
            raise Transient(message, provider=PROVIDER, code=errno.errorcode.get(error.errno or 0, "OSError")) from error


def folder_name(text: str) -> str:
    """A folder name for the text. Two texts never get the same name."""
    plain = _NO_NAME.sub("_", text)[:80]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _draft(place: Path) -> Path:
    return place.with_name(f".{place.name}")


def _move_into_place(draft: Path, place: Path) -> bool:
    """Rename the draft to its final name, unless that is done already. False when neither exists."""
    if not (place / FACTS).is_file():
        if not (draft / FACTS).is_file():
            return False
        draft.rename(place)
        _flush(place.parent)
    return True


def _flush(path: Path) -> None:
    """Flush to the disk, before the ledger says that the post exists."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
