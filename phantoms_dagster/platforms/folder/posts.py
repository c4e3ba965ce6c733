"""Reads and deletes posts in the outbox."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from phantoms_dagster.domain.errors import Transient
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import PostStanding
from phantoms_dagster.platforms.folder.publisher import FACTS, PROVIDER


class FolderPosts:
    """Implements `ports.PostReader` and `ports.PostRemover`."""

    platform = Platform("folder")
    tells_more_than_metrics = False

    def __init__(self, outbox: Path) -> None:
        self._outbox = outbox

    async def look(self, account: str, references: Sequence[str]) -> Sequence[PostStanding]:  # noqa: ARG002 - the id names it
        """See the port."""
        return [await asyncio.to_thread(self._look, reference) for reference in references]

    def _look(self, reference: str) -> PostStanding:
        place = self._outbox / reference
        try:
            facts = json.loads((place / FACTS).read_text(encoding="utf-8"))
            return PostStanding(reference, "public", "the folder is there", place.as_uri(), datetime.fromisoformat(facts["put_at"]))
        except FileNotFoundError:
            return PostStanding(reference, "gone", f"there is no folder {place.name}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Transient(f"the folder {place.name} cannot be read: {error}", provider=PROVIDER, code="unreadable") from error

    async def remove(self, account: str, remote_id: str) -> str:  # noqa: ARG002 - the id names it
        """See the port."""
        place = self._outbox / remote_id
        if self._outbox.resolve() not in place.resolve().parents:
            raise Transient(f"{remote_id} is not in the outbox", provider=PROVIDER, code="foreign_folder")
        try:
            await asyncio.to_thread(shutil.rmtree, place)
        except FileNotFoundError:
            return "there was no such folder"
        except OSError as error:
            message = f"the folder {place.name} cannot be deleted: {error.strerror or error}"
            raise Transient(message, provider=PROVIDER, code=errno.errorcode.get(error.errno or 0, "OSError")) from error
        return "the folder was deleted"
