"""Creates the adapters of the outbox."""

from __future__ import annotations

from pathlib import Path

from phantoms_dagster.platforms.folder.posts import FolderPosts
from phantoms_dagster.platforms.folder.publisher import FolderPublisher
from phantoms_dagster.platforms.tools import Tools

__all__ = ["post_reader", "post_remover", "publisher"]


def publisher(tools: Tools) -> FolderPublisher:
    """See `platforms.tools`."""
    return FolderPublisher(_outbox(tools), clock=tools.clock)


def post_reader(tools: Tools) -> FolderPosts:
    """See `platforms.tools`."""
    return FolderPosts(_outbox(tools))


def post_remover(tools: Tools) -> FolderPosts:
    """See `platforms.tools`."""
    return FolderPosts(_outbox(tools))


def _outbox(tools: Tools) -> Path:
    chosen: Path | None = tools.setting("path")
    return (chosen or tools.folder / "outbox").expanduser().absolute()
