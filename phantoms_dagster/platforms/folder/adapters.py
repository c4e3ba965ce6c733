"""Creates the outbox's publisher."""

from __future__ import annotations

from pathlib import Path

from phantoms_dagster.platforms.folder.publisher import FolderPublisher
from phantoms_dagster.platforms.tools import Tools

__all__ = ["publisher"]


def publisher(tools: Tools) -> FolderPublisher:
    """See `platforms.tools`."""
    chosen: Path | None = tools.setting("path")
    return FolderPublisher((chosen or tools.folder / "outbox").expanduser().absolute(), clock=tools.clock)
