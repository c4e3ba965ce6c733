"""What became of posts that Upload-Post published: their public ids, their numbers, and whether the platform still shows them.

Upload-Post's `completed` may come before the platform's own id, or without it. The ledger then has our request's id as the post's.
The readers ask Upload-Post, so the account need not be connected to the platform here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import timedelta

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import FoundPost, Metrics, MetricsPage, PostStanding
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers.tools import ServiceTools
from phantoms_dagster.providers.uploadpost.api import PROVIDER, SeenPost, UploadPostApi
from phantoms_dagster.providers.uploadpost.publisher import GatewayPost

# Between Upload-Post's clock and ours.
CLOCK_SKEW = timedelta(minutes=10)

PublicId = Callable[[str], str | None]


class UploadPostLateIds:
    """Implements `ports.LateIds`. `public_id` finds the platform's own id in an id or a URL."""

    provider = PROVIDER

    def __init__(self, platform: Platform, public_id: PublicId, service: ServiceTools) -> None:
        self.platform = platform
        self.sandbox = service.sandbox
        self._public_id = public_id
        self._api = UploadPostApi(service)

    async def public_id(self, account: str, handle: JsonObject, *, last: bool) -> FoundPost | None:
        """See the port. Asks for the status, then the history, and with the `last` try the account's own list."""
        post = GatewayPost.model_validate(handle)
        seen = await self._api.status(post.request_id, str(self.platform))
        if seen is not None and (found := self._found(SeenPost(seen.id, seen.url))) is not None:
            return found
        entry = await self._api.in_history(post.request_id, str(self.platform))
        if entry is not None and (found := self._found(entry)) is not None:
            return found
        return await self._in_list(account, post) if last else None

    def _found(self, seen: SeenPost) -> FoundPost | None:
        number = self._public_id(seen.url) or self._public_id(seen.id)
        return FoundPost(number, seen.url) if number is not None else None

    async def _in_list(self, account: str, post: GatewayPost) -> FoundPost | None:
        """The only post of the account with our caption since we sent it; None if none or several match."""
        since = (post.sent_at or post.opened_at) - CLOCK_SKEW
        caption, found = post.fields.get("title", ""), list[FoundPost]()
        async for page in self._api.posts(str(self.platform), account):
            ours = [seen for seen in page if seen.at is not None and seen.at >= since]
            found += [one for seen in ours if caption and seen.caption == caption and (one := self._found(seen)) is not None]
            if len(ours) < len(page):
                break  # the newest come first
        return found[0] if len(found) == 1 else None


class UploadPostMetricsReader:
    """Implements `ports.MetricsReader` with live analytics, one call a post. The documentation names no field for watch time."""

    provider = PROVIDER

    def __init__(self, platform: Platform, public_id: PublicId, service: ServiceTools) -> None:
        self.platform = platform
        self._public_id = public_id
        self._api = UploadPostApi(service)

    async def pages(
        self,
        account: str,
        remote_ids: Sequence[str],
        *,
        without: Collection[str] = (),  # noqa: ARG002 - every account has all four metrics
    ) -> AsyncIterator[MetricsPage]:
        """See the port. One post a page. Posts without numbers come last: those that the account's list has not either are gone."""
        missing: dict[str, str] = {}
        for remote_id in dict.fromkeys(remote_ids):
            found = await self._api.analytics(str(self.platform), account, remote_id)
            numbers = None if found is None else found.get("post_metrics")
            if isinstance(numbers, dict) and found is not None and found.get("success") is not False:
                yield MetricsPage((_metrics(remote_id, numbers),))
            else:
                missing[remote_id] = _reason(found)
        if missing:
            listed = {remote_id for remote_id in missing if self._public_id(remote_id) is None}  # the list has no such ids
            listed |= set(await _listed(self._api, self.platform, account, missing.keys() - listed))
            failed = {remote_id: reason for remote_id, reason in missing.items() if remote_id in listed}
            yield MetricsPage(gone=tuple(missing.keys() - listed), failed=failed)


def _reason(found: JsonObject | None) -> str:
    if found is None:
        return "Upload-Post does not know the post"
    return str(found.get("post_metrics_error") or found.get("error") or "Upload-Post has no numbers of the post")[:300]


def _metrics(remote_id: str, numbers: JsonObject) -> Metrics:
    def count(name: str) -> int | None:
        value = numbers.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    return Metrics(remote_id, count("views"), count("likes"), count("comments"), count("shares"))


async def _listed(api: UploadPostApi, platform: Platform, account: str, wanted: Collection[str]) -> Mapping[str, SeenPost]:
    """Those of the posts that the account's list has. It is read to its end unless all are found."""
    shown: dict[str, SeenPost] = {}
    if not wanted:
        return shown
    async for page in api.posts(str(platform), account):
        shown |= {seen.id: seen for seen in page if seen.id in wanted}
        if len(shown) == len(wanted):
            break
    return shown


class UploadPostReader:
    """Implements `ports.PostReader` with the account's list of media, which the platform makes. It has only public posts."""

    tells_more_than_metrics = False

    def __init__(self, platform: Platform, service: ServiceTools) -> None:
        self.platform = platform
        self._api = UploadPostApi(service)

    async def look(self, account: str, references: Sequence[str]) -> Sequence[PostStanding]:
        """See the port. Only a list that was read to its end proves that a post is not in it."""
        shown = await _listed(self._api, self.platform, account, set(references))
        return [self._standing(one, shown.get(one)) for one in references]

    def _standing(self, remote_id: str, seen: SeenPost | None) -> PostStanding:
        if seen is None:
            title = self.platform.title
            return PostStanding(remote_id, "gone", f"{title}'s list of posts at Upload-Post does not contain it")
        return PostStanding(remote_id, "public", "the list of posts at Upload-Post contains it", seen.url, seen.at)
