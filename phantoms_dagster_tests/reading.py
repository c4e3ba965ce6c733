"""What tests of reading results back share: all pages of a reader as one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from phantoms_dagster.domain.ports import Metrics, MetricsPage, MetricsReader


async def whole(pages: AsyncIterator[MetricsPage]) -> MetricsPage:
    """All pages as one."""
    found = [page async for page in pages]
    return MetricsPage(
        metrics=tuple(m for page in found for m in page.metrics),
        gone=tuple(i for page in found for i in page.gone),
        failed={i: why for page in found for i, why in page.failed.items()},
        unsupported=frozenset(m for page in found for m in page.unsupported),
    )


async def metrics(reader: MetricsReader, account: str, remote_ids: Sequence[str]) -> list[Metrics]:
    """The numbers that a reader finds, in its order."""
    return list((await whole(reader.pages(account, remote_ids))).metrics)
