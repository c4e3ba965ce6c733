"""Where Instagram gets the bytes of a reel from: an upload, or an address from which it fetches them.

The guide allows uploads only with Facebook Login. With Instagram Login some apps may upload, and others are refused (code 100). So
with Instagram Login the file is fetched if it has an address that Meta's servers can reach.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.platforms.instagram.api import FETCH_FAILED, PROVIDER, Graph
from phantoms_dagster.platforms.instagram.reel import terms_of

Way: TypeAlias = Literal["auto", "resumable", "url"]


async def address_of(job: PublishJob, way: Way, graph: Graph, *, sandbox: bool) -> str | None:
    """The address from which Instagram fetches the file. None: its bytes are uploaded. Raises Permanent if it must have one.

    The address is a secret. The sandbox fetches files from this machine, without https.
    """
    if way == "resumable" or (way == "auto" and not graph.instagram_login):
        return None
    address = await job.address()
    if address is not None and address.isascii() and (sandbox or address.startswith("https://")):
        return address
    if way == "auto":
        return None
    message = (
        "Instagram cannot fetch the video, because it has no https address: keep the media in an object store that the internet "
        "can reach (PHANTOMS_MEDIA_URL), or set PHANTOMS_INSTAGRAM_UPLOAD=resumable"
    )
    raise Permanent(message, provider=PROVIDER, code="no_address")


def explained(error: Permanent, job: PublishJob, *, fetched: bool) -> Permanent:
    """The refusal of a container, with what to do about it if that is known."""
    if type(error) is not Permanent:  # a subclass says what to do already
        return error
    advice = None
    if error.code == FETCH_FAILED:
        advice = "let Meta's servers fetch files from the object store of PHANTOMS_MEDIA_URL; its robots.txt counts, too"
    elif not fetched and "video_url" in str(error):
        advice = (
            "this login takes no uploads: keep the media in an object store with an https address (PHANTOMS_MEDIA_URL), or connect "
            "the account with Facebook Login"
        )
    elif terms_of(job).trial is not None and "trial" in str(error):
        advice = "the account may not post trial reels: leave `trial` out of its channel's `instagram` in channels.yaml"
    if advice is None:
        return error
    return Permanent(f"{error}; {advice}", provider=PROVIDER, code=error.code, evidence=error.evidence)
