"""Channels, briefs and what each stage makes of them: frozen values, checked when they are made.

Lengths are in seconds, sizes in bytes, sound levels in LUFS, money in US dollars, times are aware datetimes in UTC.
How a value is stored or sent to a provider belongs elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, TypeAdapter, field_validator, model_validator

from phantoms_dagster.domain.hashtags import Hashtag, unique
from phantoms_dagster.domain.languages import language_tag
from phantoms_dagster.domain.problems import MisplacedError
from phantoms_dagster.domain.text import NFC, Written, has_word
from phantoms_dagster.domain.values import Value
from phantoms_dagster.registry.platforms import Platform as Platform  # noqa: PLC0414 - part of what is here

MAX_TITLE_CHARACTERS = 200
MAX_ANGLE_CHARACTERS = 1_000
MAX_FACT_CHARACTERS = 500
MAX_FACTS = 30

Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, Field(min_length=1)]


TOKEN_PLACE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:[/~].+")


class Palette(Value):
    """The colours of a channel, as #rrggbb."""

    background: tuple[Colour, Colour] = ("#101a3a", "#5b2a86")
    text: Colour = "#ffffff"
    accent: Colour = "#ffd23f"


class PostingHours(Value):
    """When a channel posts: local hours, `start <= hour < end`. With `end` before `start` they go over midnight.

    The default is around the clock.
    """

    start: Annotated[int, Field(ge=0, le=23)] = 0
    end: Annotated[int, Field(ge=0, le=24)] = 24

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.start == self.end % 24 and self.end != 24:
            raise ValueError("start and end are the same hour; around the clock is {start: 0, end: 24}")
        return self

    def __contains__(self, hour: int) -> bool:
        """Whether a channel posts within that local hour."""
        if self.start < self.end:
            return self.start <= hour < self.end
        return hour >= self.start or hour < self.end


class TikTokChoices(Value):
    """What TikTok wants a person to choose for its posts (content sharing guidelines): nothing is chosen for them.

    Interactions are off and the content is nobody's advertisement unless the channel says otherwise; who may see the posts has no
    default. `your_brand`: promotes the account's own business; `branded_content`: a third party pays for it.
    """

    privacy: Literal["PUBLIC_TO_EVERYONE", "FOLLOWER_OF_CREATOR", "MUTUAL_FOLLOW_FRIENDS", "SELF_ONLY"]
    comments: bool = False
    duets: bool = False
    stitches: bool = False
    your_brand: bool = False
    branded_content: bool = False

    @model_validator(mode="after")
    def _seen_by_others(self) -> Self:
        if self.branded_content and self.privacy == "SELF_ONLY":
            raise ValueError("branded_content cannot go out as SELF_ONLY; choose another privacy")
        return self


TIKTOK_DECLARATION = "2026-09"  # the guidelines' wording of that month


class TikTokTerms(Value):
    """What a TikTok post declares. A person agrees to it by approving: the approval keeps it with their name and the time.

    `declaration` is the guidelines' own text, `version` says of which month. All our videos are made by AI, and say so.
    """

    comments: bool
    duets: bool
    stitches: bool
    your_brand: bool
    branded_content: bool
    ai_generated: bool = True
    declaration: str
    version: str = TIKTOK_DECLARATION

    @classmethod
    def of(cls, choices: TikTokChoices) -> Self:
        """The terms that follow from a channel's choices."""
        policy = "Branded Content Policy and Music Usage Confirmation" if choices.branded_content else "Music Usage Confirmation"
        said = f"By posting, you agree to TikTok's {policy}."
        return cls(declaration=said, **choices.model_dump(exclude={"privacy"}))


class InstagramLimits(Value):
    """The most hashtags and mentions in a caption. Instagram counts five hashtags since December 2025; what is more is left out."""

    hashtags: Annotated[int, Field(ge=0, le=30)] = 5
    mentions: Annotated[int, Field(ge=0, le=20)] = 3


class Channel(Value):
    """A brand: its voice, its look, where it posts, when, and what a video may cost.

    `tokens`: where the secret of an account is, by platform, as `env:NAME` or `file:/path`; never the secret itself.
    `reviewers`: how many different people must approve. `own_briefs`: whether somebody may approve a brief that they added.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    title: Annotated[str, Field(min_length=1, max_length=80), NFC]
    brand_voice: Annotated[str, Field(min_length=1, max_length=2_000), NFC]
    banned_words: tuple[Written, ...] = ()
    language: str = "en"
    voice: str = "default"
    target_seconds: Annotated[int, Field(ge=15, le=60)] = 30
    accounts: dict[Platform, Annotated[str, Field(min_length=1, max_length=100), NFC]]
    tokens: dict[Platform, str] = Field(default_factory=dict)
    hashtags: tuple[Hashtag, ...] = ()
    timezone: str = "UTC"
    posting_hours: PostingHours = PostingHours()
    budget_usd: Annotated[Decimal, Field(ge=0)] = Decimal("1.00")
    palette: Palette = Palette()
    made_for_kids: bool = False
    reviewers: Annotated[int, Field(ge=1, le=2)] = 1
    own_briefs: Literal["allow", "refuse"] = "allow"
    instagram: InstagramLimits = InstagramLimits()
    tiktok: TikTokChoices | None = None

    @field_validator("hashtags")
    @classmethod
    def _each_once(cls, value: tuple[Hashtag, ...]) -> tuple[Hashtag, ...]:
        return unique(value)

    @field_validator("language")
    @classmethod
    def _known_language(cls, value: str) -> str:
        return language_tag(value)

    @field_validator("tokens")
    @classmethod
    def _places_of_tokens(cls, value: dict[Platform, str]) -> dict[Platform, str]:
        # What was written is never repeated: it may be the secret itself.
        for platform, place in value.items():
            if not TOKEN_PLACE.fullmatch(place):
                message = "write env:VARIABLE or file:/path/of/a/secret, never the token itself"
                raise MisplacedError((str(platform),), f"the token of the {platform.title} account: {message}")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError) as error:
            raise ValueError(f"unknown time zone {value!r}; use a name such as Europe/Berlin") from error
        return value

    @model_validator(mode="after")
    def _posts_somewhere(self) -> Self:
        if not self.accounts:
            raise ValueError("a channel needs at least one account to post to")
        return self

    def banned_in(self, text: str) -> list[str]:
        """The banned words that stand in `text` as whole words, whatever their case."""
        return [word for word in self.banned_words if has_word(text, word)]


def _accounts_with_tokens(given: Any) -> Any:
    """`youtube: {account: main, token: env:NAME}` is the account `main` and where its secret is."""
    accounts = given.get("accounts") if isinstance(given, Mapping) else None
    if not isinstance(accounts, Mapping):
        return given
    beside = given.get("tokens") or {}
    if not isinstance(beside, Mapping):
        return given  # its own check says so
    names, tokens = dict(accounts), dict(beside)
    for platform, account in accounts.items():
        if isinstance(account, Mapping):
            place = ("accounts", str(platform))
            unknown = sorted(str(key) for key in account if key not in ("account", "token"))
            if unknown or "account" not in account:
                raise MisplacedError(place, "write {account: NAME, token: env:VARIABLE}, or only the name")
            names[platform] = account["account"]
            if account.get("token") is not None:
                if platform in beside:
                    raise MisplacedError((*place, "token"), f"`tokens` has a place for {platform}, too; remove one of the two")
                tokens[platform] = account["token"]
    return {**given, "accounts": names, "tokens": tokens}


# A channel as people write it. A stored one has its accounts and tokens apart, and is read twice as quickly without this step.
WRITTEN_CHANNEL: TypeAdapter[Channel] = TypeAdapter(Annotated[Channel, BeforeValidator(_accounts_with_tokens)])


class Brief(Value):
    """What a person asks for. `publish_at` is when the posts may go out at the earliest."""

    title: Annotated[str, Field(min_length=1, max_length=MAX_TITLE_CHARACTERS), NFC]
    angle: Annotated[str, Field(max_length=MAX_ANGLE_CHARACTERS), NFC] = ""
    facts: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=MAX_FACT_CHARACTERS), NFC], ...], Field(max_length=MAX_FACTS)
    ] = ()
    channel: str
    platforms: Annotated[tuple[Platform, ...], Field(min_length=1)]
    publish_at: datetime | None = None
    priority: Annotated[int, Field(ge=0, le=9)] = 5

    @field_validator("publish_at")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("publish_at needs a time zone")
        return value

    @property
    def fingerprint(self) -> str:
        """Two briefs that ask for the same video have the same fingerprint (title, angle, facts, channel)."""
        same = [self.title.casefold().strip(), self.angle.strip(), sorted(self.facts), self.channel]
        return hashlib.sha256(json.dumps(same, ensure_ascii=False).encode()).hexdigest()


class Video(Value):
    """One video of the catalogue: its partition key, its brief and its channel."""

    key: str
    brief: Brief
    channel: Channel
    created_at: datetime


class MediaFile(Value):
    """A file in the media store, addressed by the hash of its bytes. `size` is in bytes."""

    sha256: Sha256
    size: Annotated[int, Field(gt=0)]
    suffix: Annotated[str, Field(pattern=r"^\.[a-z0-9]{1,8}$")]

    @property
    def name(self) -> str:
        """The name inside the store, such as `ab/cd...mp4`."""
        return f"{self.sha256[:2]}/{self.sha256[2:]}{self.suffix}"


class Scene(Value):
    """A part of a script: the words that are spoken, and the headline shown meanwhile, if any. A headline never breaks off."""

    narration: Annotated[str, Field(min_length=1, max_length=600)]
    on_screen_text: Annotated[str, Field(max_length=110)]


class Script(Value):
    """The words of a video. The hook is spoken first, before the scenes."""

    hook: Annotated[str, Field(min_length=1, max_length=200)]
    scenes: Annotated[tuple[Scene, ...], Field(min_length=1, max_length=12)]
    title: Annotated[str, Field(min_length=1, max_length=100)]
    caption: Annotated[str, Field(min_length=1, max_length=1_500)]
    hashtags: Annotated[tuple[Hashtag, ...], Field(max_length=15)]

    @property
    def text(self) -> str:
        """Everything that is spoken."""
        return " ".join([self.hook, *(scene.narration for scene in self.scenes)])


class Sentence(Value):
    """A spoken sentence; `scene` is -1 for the hook; `start` and `end` are seconds from the start of the voiceover."""

    text: Line
    scene: Annotated[int, Field(ge=-1)]
    start: Annotated[float, Field(ge=0)]
    end: Annotated[float, Field(gt=0)]


class Probe(Value):
    """What a media file really is, as read from its streams. `loudness_lufs` is integrated; None when not measured."""

    container: str
    seconds: float
    size: int
    width: int
    height: int
    fps: float
    video_codec: str
    video_profile: str | None = None
    pixel_format: str
    audio_codec: str | None = None
    audio_hz: int | None = None
    audio_channels: int | None = None
    bit_rate: int
    moov_first: bool
    loudness_lufs: float | None = None


class ScriptOutput(Value):
    """What `script` makes. `removed` is what was taken out of the model's answer, such as `scene 2: **`.

    `edited_by`: who changed its texts last; empty when they are the model's.
    """

    kind: Literal["script"] = "script"
    script: Script
    model: str
    removed: tuple[str, ...] = ()
    sandbox: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    edited_by: str = ""


class VoiceoverOutput(Value):
    """What `voiceover` makes: 16-bit PCM sound in a WAV file and when each sentence is spoken.

    `unspoken` are the sentences and words that the voice has no sound for. They are shown and not heard.
    """

    kind: Literal["voiceover"] = "voiceover"
    audio: MediaFile
    seconds: float
    sentences: tuple[Sentence, ...]
    voice: str
    unspoken: tuple[str, ...] = ()


class PostWords(Value):
    """Everything one platform is told beside the film: what a person approves with it. `privacy` is in the platform's own terms.

    `left_out`: hashtags and mentions that the platform's limits left no room for. They are shown, and are not part of the hash.
    """

    platform: Platform
    title: str
    caption: str
    privacy: str
    made_for_kids: bool = False
    left_out: tuple[str, ...] = ()
    tiktok: TikTokTerms | None = None


class RenderedVideoOutput(Value):
    """What `rendered_video` makes: the master, 1080x1920, and a JPEG of a telling frame.

    `words`: what the posts would say when the film was made, so what its reviewer is shown; `content_sha256`: the hash of both.
    `named`: the picture carries the channel's name.
    """

    kind: Literal["rendered_video"] = "rendered_video"
    video: MediaFile
    thumbnail: MediaFile
    probe: Probe
    renderer: str
    render_id: str
    not_shown: tuple[str, ...] = ()
    words: tuple[PostWords, ...] = ()
    content_sha256: str = ""
    named: bool = False


class ApprovalOutput(Value):
    """What `approval` makes. `content_sha256` is the hash of exactly what was approved (see `content_hash`).

    `words`: what each platform will be told. Approvals of older versions have none.
    """

    kind: Literal["approval"] = "approval"
    reviewer: str
    note: str = ""
    content_sha256: Sha256
    decided_at: datetime
    words: tuple[PostWords, ...] = ()


class VariantOutput(Value):
    """What `<platform>/variant` makes: a file within the platform's limits and the words that go with it."""

    kind: Literal["variant"] = "variant"
    platform: Platform
    video: MediaFile
    probe: Probe
    how: Literal["kept", "remuxed", "transcoded"]
    title: str
    caption: str
    content_sha256: Sha256


class PostOutput(Value):
    """What `<platform>/post` makes."""

    kind: Literal["post"] = "post"
    platform: Platform
    account: str
    remote_id: str
    url: str
    published_at: datetime
    sandbox: bool = False


StageOutput = Annotated[
    ScriptOutput | VoiceoverOutput | RenderedVideoOutput | ApprovalOutput | VariantOutput | PostOutput,
    Field(discriminator="kind"),
]


def content_hash(script: Script, video: MediaFile, words: Sequence[PostWords] = ()) -> str:
    """The hash an approval is bound to: the bytes of the master, the script's words and everything each platform will be told.

    Without `words` it is the hash of approvals that older versions made.
    """
    return _content_hash(video.sha256, script.title, script.caption, tuple(script.hashtags), tuple(words))


# Each stage after an approval asks for it several times a video.
@lru_cache(maxsize=2048)
def _content_hash(sha256: str, title: str, caption: str, hashtags: tuple[str, ...], words: tuple[PostWords, ...]) -> str:
    content: list[Any] = [sha256, title, caption, list(hashtags)]
    ordered = sorted(words, key=lambda post: post.platform)
    content += [post.model_dump(mode="json", exclude={"left_out"}, exclude_none=True) for post in ordered]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
