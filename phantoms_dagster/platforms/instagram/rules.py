"""Instagram's rules: words, media, limits of calls.

Sources: Meta for Developers, IG User media, "Reel specifications" and "Rate limiting". Numbers of November 2026.
"""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr

from phantoms_dagster.platforms.instagram.choices import CHANNEL_KEY
from phantoms_dagster.registry.media import MediaLimits
from phantoms_dagster.registry.pools import DAY, HOUR, PoolLimits, Rate
from phantoms_dagster.registry.routes import Route
from phantoms_dagster.registry.spec import SANDBOX, Appearance, PlatformSpec, PostForm, SandboxApp, Setting, WordRules

PLATFORM = PlatformSpec(
    name="instagram",
    title="Instagram",
    usual=True,
    oauth=True,
    redirects="It takes https addresses only.",
    roomy={"quota_total": 10_000},
    adapters="phantoms_dagster.platforms.instagram.adapters",
    sandbox="phantoms_dagster.sandbox.instagram.routes",
    sandbox_path="/instagram",
    sandbox_app=SandboxApp(
        "1234567890123456",
        {
            "authorize_url": "/instagram/oauth/authorize",
            "token_url": "/instagram",
            "base_url": "/instagram",
            "upload_url": "/instagram/rupload",
            "redirect_uri": "https://localhost:8400/callback/",
        },
    ),
    events="phantoms_dagster.platforms.instagram.events",
    words=WordRules(room=2_200, titled=False, repeats=True),
    channel_key=CHANNEL_KEY,
    media=MediaLimits(
        containers=frozenset({"mp4", "mov"}),
        video_codecs=frozenset({"h264", "hevc"}),
        audio_codecs=frozenset({"aac"}),
        seconds=(3, 900),
        size=300_000_000,
        fps=(23, 60),
        widest=1920,
        bit_rate=25_000_000,
        audio_hz=48_000,
        moov_first=True,
        edit_lists=False,
    ),
    post_forms=(
        PostForm(
            r"https?://(?:www\.)?instagram\.com/(?:[\w.]+/)?(?:reels?|p)/(?P<id>[\w-]{5,40})/?(?:[?#].*)?",
            "https://www.instagram.com/reel/DB1xYzAbCdE/",
        ),
        PostForm(rf"{SANDBOX}/(?:instagram/)?watch/(?P<id>\w+)/?", "the URL of a reel in the sandbox", sandbox=True),
        PostForm(r"(?P<id>\d{10,25})", "17912345678901234"),
    ),
    # A number that is too high is lowered by 429 answers. Raise one that is too low with PHANTOMS_POOLS.
    pools={
        # Meta's pages say 25, 50 or 100 posts per account in a rolling 24 h. The adapter obeys content_publishing_limit before it
        # uploads; a limit of ours would stop a post after its upload. At most 400 containers a day. Other calls: 200 per user and
        # hour, of which 140 are for publishing and 60 for reading metrics.
        # developers.facebook.com/docs/graph-api/overview/rate-limiting
        "publish_instagram": PoolLimits(slots=16),
        "publish_instagram:*": PoolLimits(slots=2),
        "instagram_container:*": PoolLimits(slots=2, rates=(Rate(400, DAY, 50),)),
        "instagram_api": PoolLimits(slots=16),
        "instagram_api:*": PoolLimits(slots=4, rates=(Rate(140, HOUR, 40),)),
        "metrics_instagram": PoolLimits(slots=8),
        # Metrics are read once an hour, so the whole hour's share may be used at once.
        "metrics_instagram:*": PoolLimits(slots=4, rates=(Rate(60, HOUR, 60),)),
        "upload_instagram": PoolLimits(slots=8, lease_seconds=60),
    },
    routes=(
        Route("POST", r"/ig-api-upload/|rupload\.", "upload_instagram"),
        Route("POST", r"/media_publish\b", "publish_instagram"),
        Route("POST", r"/media\b", "instagram_container"),
        Route("GET", r"/insights$", "metrics_instagram", integration="instagram_metrics"),
        Route(None, r"", "instagram_api"),
    ),
    settings={
        "token": Setting(SecretStr | None, None, "Access token for Instagram publishing."),
        "app_secret": Setting(
            SecretStr | None, None, "Secret of the Meta app. Calls to graph.facebook.com then carry appsecret_proof."
        ),
        "verify_token": Setting(
            SecretStr | None, None, "Verify token that you entered at Meta together with the address for events."
        ),
        "client_id": Setting(str | None, None, "Instagram app id (not the Facebook app id), for `phantoms accounts connect`."),
        "client_secret": Setting(SecretStr | None, None, "Instagram app secret of that app."),
        "redirect_uri": Setting(
            str | None,
            None,
            "https address that the app sends people back to, as it is registered. Instagram takes no http address.",
        ),
        "authorize_url": Setting(str, "https://www.instagram.com/oauth/authorize", "Where people grant access."),
        "token_url": Setting(str, "https://api.instagram.com", "Host that exchanges codes for tokens."),
        "base_url": Setting(str, "https://graph.facebook.com", "Host of the Graph API."),
        "upload_url": Setting(str, "https://rupload.facebook.com", "Host of the resumable upload."),
        "version": Setting(str, "v26.0", "Graph API version."),
        "upload": Setting(
            Literal["auto", "resumable", "url"],
            "auto",
            "How a reel gets to Instagram: its bytes are uploaded (`resumable`), or Instagram fetches it from the object store "
            "(`url`). `auto`: with Instagram Login it is fetched if the media are in an object store with an https address, "
            "otherwise it is uploaded.",
        ),
    },
    paces={"processing_seconds": (0.2, (30.0, 120.0))},
    look=Appearance(
        colours=("#a21caf", "#dd6fe3"),
        chart="#a21caf",
        dot="linear-gradient(45deg, #feda75, #d62976 60%, #4f5bd5)",
        safe=("14%", "35%", "6%", "6%"),
        screen="phantoms_dagster.platforms.instagram",
    ),
)
