"""Deletes a published post at its platform, or checks that a person has deleted it."""

from __future__ import annotations

from collections.abc import Mapping

from phantoms_dagster.domain.errors import InvalidInput, Transient
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import PostReader, PostRemover


async def take_down(
    platform: Platform,
    account: str,
    remote_id: str,
    removers: Mapping[Platform, PostRemover],
    readers: Mapping[Platform, PostReader],
) -> str:
    """Delete the post. Returns the evidence. A lost answer is settled by a read. Raises the platform's errors."""
    try:
        return await removers[platform].remove(account, remote_id)
    except Transient as lost:
        [standing] = await readers[platform].look(account, [remote_id])
        if standing.state != "gone":
            raise
        return f"the answer to the deletion was lost ({lost}); then {standing.evidence}"


async def check_deleted(platform: Platform, account: str, remote_id: str, readers: Mapping[Platform, PostReader]) -> str:
    """Check that the platform no longer shows the post. Returns the evidence. Raises InvalidInput when it still does."""
    if platform not in readers:
        return f"{platform.title} cannot be read, so nothing was checked"
    [standing] = await readers[platform].look(account, [remote_id])
    if standing.state != "gone":
        raise InvalidInput(f"{platform.title} still has the post ({standing.evidence}): delete it there, then run this again")
    return standing.evidence
