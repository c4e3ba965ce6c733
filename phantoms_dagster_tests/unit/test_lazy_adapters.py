"""Adapters that are created on first access, whichever way they are asked for."""

from __future__ import annotations

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.wiring.platforms import LazyAdapters

YOUTUBE, TIKTOK = Platform("youtube"), Platform("tiktok")


def test_an_adapter_is_created_once_by_index_and_by_get_alike() -> None:
    """`get` of a dict knows only what is there already. So no post was given captions, and no account was asked before its post
    counted as gone."""
    made: list[Platform] = []

    def make(platform: Platform) -> str:
        made.append(platform)
        return f"adapter of {platform}"

    adapters = LazyAdapters(make, (YOUTUBE,))
    assert adapters.get(YOUTUBE) == "adapter of youtube"
    assert adapters[YOUTUBE] == "adapter of youtube"
    assert made == [YOUTUBE]
    assert adapters.get(TIKTOK) is None
    assert adapters.get(TIKTOK, "none") == "none"
    assert TIKTOK not in adapters
