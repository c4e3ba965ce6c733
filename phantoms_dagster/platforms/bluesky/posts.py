"""Reads posts from the account's own repository, which is the first to know whether a post exists. Deletes them there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from phantoms_dagster.domain.errors import Permanent, Transient, Unknown
from phantoms_dagster.domain.ports import PostStanding
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.bluesky.api import PLATFORM, PROVIDER, RECORD_GONE, AccountSession, Calls
from phantoms_dagster.platforms.bluesky.record import COLLECTION


class BlueskyPosts:
    """Implements `ports.PostReader`, with one `getRecord` for each post, and `ports.PostRemover`."""

    provider = PROVIDER
    platform = PLATFORM
    tells_more_than_metrics = False

    def __init__(self, calls: Calls, *, site: str) -> None:
        self._calls = calls
        self._site = site.rstrip("/")

    async def look(self, account: str, references: Sequence[str]) -> Sequence[PostStanding]:
        """See the port."""
        session = await self._calls.session(account)
        return [await self._look(session, account, reference.rsplit("/", 1)[-1]) for reference in references]

    async def _look(self, session: AccountSession, account: str, key: str) -> PostStanding:
        uri = f"at://{session.did}/{COLLECTION}/{key}"
        try:
            answer = await self._calls.get(account, "com.atproto.repo.getRecord", repo=session.did, collection=COLLECTION, rkey=key)
        except Permanent as error:
            if error.code != RECORD_GONE:
                raise
            return PostStanding(uri, "gone", f"the account's repository has no record {key}")
        value = answer.get("value")
        created = value.get("createdAt") if isinstance(value, dict) else None
        at = datetime.fromisoformat(created) if isinstance(created, str) else None
        return PostStanding(uri, "public", "the record exists", f"{self._site}/profile/{session.did}/post/{key}", at)

    async def remove(self, account: str, remote_id: str) -> str:
        """See the port. A server answers a repeat like the first call."""
        session = await self._calls.session(account)
        body: JsonObject = {"repo": session.did, "collection": COLLECTION, "rkey": remote_id.rsplit("/", 1)[-1]}
        try:
            await self._calls.post(account, "com.atproto.repo.deleteRecord", body)
        except Unknown as error:
            raise Transient(str(error), provider=PROVIDER, code=error.code, evidence=error.evidence) from error
        return "deleteRecord succeeded"
