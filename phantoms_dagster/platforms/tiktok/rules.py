"""TikTok's rules: words, media, limits of calls.

Sources: TikTok for Developers, "Media transfer guide", "API rate limits" and "Content sharing guidelines".
Numbers of November 2026.
"""

from __future__ import annotations

from pydantic import SecretStr

from phantoms_dagster.platforms.tiktok.choices import CHANNEL_KEY
from phantoms_dagster.platforms.tiktok.routes import CREATORS_CHOICE
from phantoms_dagster.registry.media import MediaLimits
from phantoms_dagster.registry.pools import DAY, MINUTE, PoolLimits, Rate
from phantoms_dagster.registry.routes import Route
from phantoms_dagster.registry.spec import SANDBOX, Appearance, LateIdRule, PlatformSpec, PostForm, SandboxApp, Setting, WordRules

PLATFORM = PlatformSpec(
    name="tiktok",
    title="TikTok",
    usual=True,
    oauth=True,
    redirects="Register http://127.0.0.1:*/callback for this machine.",
    # Until moderation has ended, a post has only its publish_id, such as v_pub_file~v2-1.123. Only a post that is public to
    # everyone ever gets a number. That may be what the creator chose for a draft. `fields`: a post through the gateway.
    gateway="uploadpost",
    late_ids=LateIdRule(
        public_id="^[0-9]+$",
        handles=(
            {"privacy": "PUBLIC_TO_EVERYONE"},
            {"privacy": CREATORS_CHOICE},
            {"fields": {"privacy_level": "PUBLIC_TO_EVERYONE"}},
        ),
    ),
    adapters="phantoms_dagster.platforms.tiktok.adapters",
    sandbox="phantoms_dagster.sandbox.tiktok.routes",
    sandbox_path="/tiktok",
    sandbox_app=SandboxApp("sandbox-client-key", {"authorize_url": "/tiktok/v2/auth/authorize/", "base_url": "/tiktok"}),
    events="phantoms_dagster.platforms.tiktok.events",
    # Lengths are in UTF-16 units. The privacy has no default: the channel must choose it, or the post is refused.
    words=WordRules(
        room=2_200,
        size=lambda text: len(text.encode("utf-16-le")) // 2,
        names_in_picture=False,
        privacy="",
    ),
    channel_key=CHANNEL_KEY,
    # Every creator may post three minutes, some ten. The publisher reads the creator's own maximum.
    media=MediaLimits(
        containers=frozenset({"mp4", "mov", "webm"}),
        video_codecs=frozenset({"h264", "hevc", "vp8", "vp9"}),
        audio_codecs=frozenset({"aac", "mp3", "opus", "vorbis"}),
        seconds=(0.1, 600),
        size=4 << 30,
        fps=(23, 60),
        sides=(360, 4096),
    ),
    post_forms=(
        PostForm(
            r"https?://(?:www\.|m\.)?tiktok\.com/@[\w.-]+/video/(?P<id>\d{10,25})(?:[?#].*)?",
            "https://www.tiktok.com/@you/video/7300000000000000000",
        ),
        PostForm(rf"{SANDBOX}/(?:(?:tiktok|uploadpost)/)?watch/(?P<id>\d+)", "the URL of a video in the sandbox", sandbox=True),
        PostForm(r"(?P<id>\d{10,25})", "7300000000000000000"),
    ),
    # A number that is too high is lowered by 429 answers. Raise one that is too low with PHANTOMS_POOLS.
    pools={
        # TikTok: limits per user token in a sliding minute; init 6, status 30, creator_info 20, each metrics endpoint 600;
        # about 15 posts per creator in 24 h, all clients together. developers.tiktok.com/doc/tiktok-api-v2-rate-limit
        "publish_tiktok": PoolLimits(slots=16),
        "publish_tiktok:*": PoolLimits(slots=2, rates=(Rate(6, MINUTE, 2), Rate(15, DAY, 15))),
        # At most five drafts of a creator wait within a day, whether finished or not: the documentation leaves that open.
        "inbox_tiktok": PoolLimits(slots=16),
        "inbox_tiktok:*": PoolLimits(slots=2, rates=(Rate(6, MINUTE, 2), Rate(5, DAY, 5))),
        "tiktok_creator:*": PoolLimits(slots=2, rates=(Rate(20, MINUTE, 4),)),
        "tiktok_status:*": PoolLimits(slots=4, rates=(Rate(30, MINUTE, 6),)),
        "upload_tiktok": PoolLimits(slots=8, lease_seconds=60),
        "tiktok_api": PoolLimits(slots=8),
        "tiktok_api:*": PoolLimits(slots=4, rates=(Rate(600, MINUTE, 60),)),
        "metrics_tiktok": PoolLimits(slots=8),
        "metrics_tiktok:*": PoolLimits(slots=4, rates=(Rate(600, MINUTE, 60),)),
    },
    routes=(
        Route("PUT", r"", "upload_tiktok"),
        Route(None, r"/publish/inbox/video/init/", "inbox_tiktok"),
        Route(None, r"/publish/video/init/", "publish_tiktok"),
        Route(None, r"/publish/creator_info/", "tiktok_creator"),
        Route(None, r"/publish/", "tiktok_status"),
        Route(None, r"/video/(query|list)/", "metrics_tiktok", integration="tiktok_metrics"),
        Route(None, r"", "tiktok_api"),
    ),
    settings={
        "token": Setting(SecretStr | None, None, "OAuth access token for TikTok."),
        "client_id": Setting(str | None, None, "Client key of the app at TikTok for Developers, for `phantoms accounts connect`."),
        "client_secret": Setting(SecretStr | None, None, "Client secret of that app."),
        "redirect_uri": Setting(
            str | None,
            None,
            "Address that the app sends people back to, as it is registered. `*` for its port: a free one. Unset: a free port of "
            "this machine.",
        ),
        "authorize_url": Setting(str, "https://www.tiktok.com/v2/auth/authorize/", "Where people grant access."),
        "base_url": Setting(str, "https://open.tiktokapis.com", "Host of the TikTok API."),
    },
    paces={
        "processing_seconds": (0.2, (10.0, 60.0)),
        # How much later the public id comes: mostly within minutes, sometimes after hours.
        "moderation_seconds": (0.0, (30.0, 7_200.0)),
    },
    look=Appearance(
        colours=("#1c9c96", "#35d6cf"),
        chart="#111827",
        dot="linear-gradient(90deg, #25f4ee 50%, #fe2c55 50%)",
        safe=("6.8%", "25.2%", "5.6%", "11.1%"),
        screen="phantoms_dagster.platforms.tiktok",
    ),
)
