"""Bluesky's rules: words, media, limits of calls.

Sources: the lexicons app.bsky.feed.post, app.bsky.embed.video and app.bsky.video.* (2026); docs.bsky.app, "Rate limits", "Video".
"""

from __future__ import annotations

from pydantic import SecretStr

from phantoms_dagster.registry.media import MediaLimits
from phantoms_dagster.registry.pools import DAY, HOUR, MINUTE, PoolLimits, Rate
from phantoms_dagster.registry.routes import Route
from phantoms_dagster.registry.spec import SANDBOX, Appearance, PlatformSpec, PostForm, Setting, WordRules

MAX_GRAPHEMES, MAX_BYTES = 300, 3_000


def size(text: str) -> int:
    """A text's length in graphemes, or, if that is more, its share of the byte limit expressed in graphemes."""
    import regex  # noqa: PLC0415 - everything imports the rules, and few count texts

    return max(len(regex.findall(r"\X", text)), -(-len(text.encode()) * MAX_GRAPHEMES // MAX_BYTES))


PLATFORM = PlatformSpec(
    name="bluesky",
    title="Bluesky",
    adapters="phantoms_dagster.platforms.bluesky.adapters",
    sandbox="phantoms_dagster.sandbox.bluesky.routes",
    sandbox_path="/bluesky",
    words=WordRules(room=MAX_GRAPHEMES, size=size, titled=False),
    sign_in="it takes an app password (Settings, Privacy and security, App passwords); put it where channels.yaml says, or in "
    "PHANTOMS_BLUESKY_TOKEN",
    media=MediaLimits(
        containers=frozenset({"mp4"}),
        video_codecs=frozenset({"h264"}),
        audio_codecs=frozenset({"aac"}),
        seconds=(0.1, 180),
        size=100_000_000,
        moov_first=True,
    ),
    # The reader looks in the account's own repository, so the name of the profile does not matter.
    post_forms=(
        PostForm(
            r"https://bsky\.app/profile/[^/\s]+/post/(?P<id>[\w.~:-]{1,512})",
            "https://bsky.app/profile/you.bsky.social/post/3l6oveex3ii2l",
        ),
        PostForm(
            rf"{SANDBOX}/(?:bluesky/)?profile/[^/\s]+/post/(?P<id>[\w.~:-]{{1,512}})",
            "the URL of a post in the sandbox",
            sandbox=True,
        ),
        PostForm(
            r"at://[^/\s]+/app\.bsky\.feed\.post/(?P<id>[\w.~:-]{1,512})", "at://did:plc:abc/app.bsky.feed.post/3l6oveex3ii2l"
        ),
    ),
    pools={
        # 5,000 points an hour and 35,000 a day for each account; a new record costs 3.
        "publish_bluesky": PoolLimits(slots=16),
        "publish_bluesky:*": PoolLimits(slots=2, rates=(Rate(1_666, HOUR, 20), Rate(11_666, DAY, 1_666))),
        # createSession: 30 in five minutes and 300 a day for each account.
        "bluesky_session:*": PoolLimits(slots=1, rates=(Rate(30, 5 * MINUTE, 5), Rate(300, DAY, 30))),
        # The limit of videos per day is not published. The adapter asks for the account's limit before it uploads.
        "upload_bluesky": PoolLimits(slots=8, lease_seconds=60),
        "bluesky_video": PoolLimits(slots=16),
        # 3,000 calls in five minutes for each address.
        "bluesky_api": PoolLimits(slots=16, rates=(Rate(3_000, 5 * MINUTE, 300),)),
        "metrics_bluesky": PoolLimits(slots=4),
    },
    routes=(
        Route("POST", r"/com\.atproto\.server\.(create|refresh)Session$", "bluesky_session"),
        # The video service is not the account's own server.
        Route("POST", r"/app\.bsky\.video\.uploadVideo$", "upload_bluesky", integration="bluesky_video"),
        Route(None, r"/app\.bsky\.video\.", "bluesky_video", integration="bluesky_video"),
        Route("POST", r"/com\.atproto\.repo\.createRecord$", "publish_bluesky"),
        Route("GET", r"/app\.bsky\.feed\.getPosts$", "metrics_bluesky", integration="bluesky_metrics"),
        Route(None, r"", "bluesky_api"),
    ),
    settings={
        "token": Setting(SecretStr | None, None, "App password for Bluesky. The account in channels.yaml is its handle."),
        "base_url": Setting(str, "https://bsky.social", "Host of the account's own server (PDS)."),
        "video_url": Setting(str, "https://video.bsky.app", "Host of Bluesky's video service."),
    },
    paces={"processing_seconds": (0.2, (5.0, 90.0))},
    look=Appearance(colours=("#0a6ee0", "#3b9bff"), chart="#0a7aff", dot="#1185fe"),
)
