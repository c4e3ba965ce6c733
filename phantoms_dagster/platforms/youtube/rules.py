"""YouTube's rules: words, media, limits of calls.

Sources: YouTube Help "Understand three-minute YouTube Shorts" and "Recommended upload encoding settings";
developers.google.com/youtube/v3/determine_quota_cost. Numbers of November 2026.
"""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr

from phantoms_dagster.platforms.youtube.choices import CHANNEL_KEY
from phantoms_dagster.registry.media import MediaLimits
from phantoms_dagster.registry.pools import MINUTE, PACIFIC, DailyQuota, PoolLimits, Rate
from phantoms_dagster.registry.routes import Route
from phantoms_dagster.registry.spec import SANDBOX, Appearance, PlatformSpec, PostForm, SandboxApp, Setting, WordRules

_NO_BRACKETS = str.maketrans({"<": "\u2039", ">": "\u203a"})
PLATFORM = PlatformSpec(
    name="youtube",
    title="YouTube",
    usual=True,
    oauth=True,
    redirects="A desktop app needs no redirect URI.",
    roomy={"inserts_per_day": 10_000, "units_per_day": 1_000_000},
    adapters="phantoms_dagster.platforms.youtube.adapters",
    sandbox="phantoms_dagster.sandbox.youtube.routes",
    sandbox_path="",
    sandbox_app=SandboxApp(
        "1234567890-sandbox.apps.googleusercontent.com",
        {"authorize_url": "/o/oauth2/v2/auth", "token_url": "", "base_url": ""},
    ),
    # A description's length is in bytes. YouTube refuses < and >; single guillemets replace them.
    words=WordRules(room=5_000, size=lambda text: len(text.encode()), clean=lambda text: text.translate(_NO_BRACKETS)),
    # Only a vertical or square video of at most three minutes becomes a Short.
    channel_key=CHANNEL_KEY,
    media=MediaLimits(
        containers=frozenset({"mp4", "mov", "webm"}),
        video_codecs=frozenset({"h264", "hevc", "vp9", "av1", "vp8"}),
        audio_codecs=frozenset({"aac", "mp3", "opus", "vorbis"}),
        seconds=(0.1, 180),
        size=256 << 30,
        ratios=(0.01, 1.0),
        moov_first=True,
    ),
    post_forms=(
        PostForm(
            r"https?://(?:(?:www|m)\.)?youtube\.com/(?:shorts/|watch\?v=)(?P<id>[\w-]{11})(?:[?&#].*)?",
            "https://www.youtube.com/shorts/dQw4w9WgXcQ",
        ),
        PostForm(r"https?://youtu\.be/(?P<id>[\w-]{11})(?:[?#].*)?", "https://youtu.be/dQw4w9WgXcQ"),
        PostForm(rf"{SANDBOX}/watch/(?P<id>[\w-]{{11}})", "the URL of a video in the sandbox", sandbox=True),
        PostForm(r"(?P<id>[\w-]{11})", "dQw4w9WgXcQ"),
    ),
    # A number that is too high is lowered by 429 answers. Raise one that is too low with PHANTOMS_POOLS.
    pools={
        # 100 videos.insert per project and day since 2026-06-01, in days of Pacific time. Whether an unfinished upload session
        # counts is not documented; here it counts.
        # developers.google.com/youtube/v3/determine_quota_cost
        "publish_youtube": PoolLimits(slots=16, daily=DailyQuota(100, PACIFIC)),
        "publish_youtube:*": PoolLimits(slots=2),
        # The bytes of an upload cost no quota.
        "upload_youtube": PoolLimits(slots=8, lease_seconds=60),
        # All other calls share 10,000 units per project and day: a list costs 1, videos.update and delete 50.
        "youtube_api": PoolLimits(slots=16, daily=DailyQuota(10_000, PACIFIC)),
        # Captions and thumbnails use the shared units, too, but never the last 2,000. So they cannot stop a post.
        "youtube_extras": PoolLimits(slots=4, daily=DailyQuota(8_000, PACIFIC), shares="youtube_api", leaves=2_000),
        # search.list has its own quota of 100 calls.
        "youtube_search": PoolLimits(slots=2, daily=DailyQuota(100, PACIFIC)),
        # Reading metrics has its own quota of 10,000 calls with 50 videos each.
        "metrics_youtube": PoolLimits(slots=4, daily=DailyQuota(10_000, PACIFIC)),
        # If that is refused, metrics use the shared units: at most a tenth of them, and never the last 2,000, which suffice to
        # publish about thirty videos.
        "youtube_reading": PoolLimits(slots=4, daily=DailyQuota(1_000, PACIFIC), shares="youtube_api", leaves=2_000),
        # Tokens cost no units.
        "youtube_oauth": PoolLimits(slots=4),
        # The Analytics API has its own quota, whose size is not published.
        "youtube_analytics": PoolLimits(slots=4, rates=(Rate(60, MINUTE, 6),)),
    },
    routes=(
        Route("POST", r"/upload/youtube/v3/videos", "publish_youtube"),
        Route("POST", r"/(token|revoke|tokeninfo)$", "youtube_oauth"),
        # determine_quota_cost: a write costs 50 units, a read 1; captions cost more.
        Route("POST", r"/upload/youtube/v3/captions", "youtube_extras", 400, "youtube_extras"),
        Route("POST", r"/upload/youtube/v3/thumbnails", "youtube_extras", 50, "youtube_extras"),
        Route("POST", r"/upload/", "youtube_api", 50),
        Route(None, r"/upload/", "upload_youtube"),
        Route(None, r"youtubeanalytics|/v2/reports", "youtube_analytics", integration="youtube_metrics"),
        Route("GET", r"/videos:batchGetStats", "metrics_youtube", integration="youtube_metrics"),
        Route("GET", r"/v3/search", "youtube_search"),
        Route("GET", r"/v3/captions", "youtube_extras", 50, "youtube_extras"),
        Route("GET", r"", "youtube_api"),
        Route(None, r"", "youtube_api", 50),
    ),
    settings={
        "token": Setting(SecretStr | None, None, "OAuth access token for YouTube uploads."),
        "client_id": Setting(
            str | None, None, "Client id of the app in the Google Cloud console, for `phantoms accounts connect`."
        ),
        "client_secret": Setting(SecretStr | None, None, "Client secret of that app."),
        "redirect_uri": Setting(
            str | None,
            None,
            "Address that the app sends people back to, as it is registered. Unset: a free port of this machine.",
        ),
        "authorize_url": Setting(str, "https://accounts.google.com/o/oauth2/v2/auth", "Where people grant access."),
        "token_url": Setting(str, "https://oauth2.googleapis.com", "Host that gives, renews and revokes tokens."),
        "base_url": Setting(str, "https://www.googleapis.com", "Host of the YouTube APIs."),
        "privacy": Setting(Literal["public", "unlisted", "private"], "public", "Visibility of finished YouTube posts."),
    },
    paces={"processing_seconds": (0.2, (60.0, 360.0))},
    look=Appearance(
        colours=("#d9252a", "#ff5a5f"),
        chart="#d9252a",
        dot="#ff0033",
        safe=("15%", "35%", "4.4%", "17.8%"),
        screen="phantoms_dagster.platforms.youtube",
    ),
)
