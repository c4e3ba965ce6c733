"""Channels, briefs and the outputs of all stages: frozen values, validated when they are made.

Durations are in seconds, sizes in bytes, loudness in LUFS, money in US dollars. Times are aware datetimes in UTC.
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
from phantoms_dagster.domain.platform_fields import with_channel_keys, with_post_terms
from phantoms_dagster.domain.posting_slots import MissedPolicy, PostingSlot, RepeatRule
from phantoms_dagster.domain.problems import MisplacedError
from phantoms_dagster.domain.text import NFC, Written, has_word
from phantoms_dagster.domain.values import Value
from phantoms_dagster.registry.channel_keys import ChannelKey, PostTerms
from phantoms_dagster.registry.platforms import Platform as Platform  # noqa: PLC0414 - part of what is here

MAX_TITLE_CHARACTERS = 200
MAX_ANGLE_CHARACTERS = 1_000
MAX_FACT_CHARACTERS = 500
MAX_FACTS = 30
MAX_ACCOUNT_NAME_CHARACTERS = 100

Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, Field(min_length=1)]


TOKEN_SOURCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:[/~].+")


class Palette(Value):
    """The colours of a channel, as #rrggbb."""

    background: tuple[Colour, Colour] = ("#101a3a", "#5b2a86")
    text: Colour = "#ffffff"
    accent: Colour = "#ffd23f"


class PostingHours(Value):
    """When a channel posts: local hours, `start <= hour < end`. If `end` is less than `start`, the range spans midnight.

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
        """Whether the channel posts in that local hour."""
        if self.start < self.end:
            return self.start <= hour < self.end
        return hour >= self.start or hour < self.end


@with_channel_keys
class Channel(Value):
    """A brand: its voice, its look, where and when it posts, and what a video may cost.

    `tokens`: where each account's secret is read from, by platform: `env:NAME` or `file:/path`, never the secret itself.
    `slots`: the times at which approved videos are posted; without them, posts go out as soon as they are approved.
    `min_distance_minutes`: between two posts of an account, when a slot is chosen. `missed`: what to do when a slot has passed.
    `reviewers`: how many different people must approve. `own_briefs`: whether people may approve a brief that they added.
    Platforms with a key of their own add one field each (see `key_of`).
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    title: Annotated[str, Field(min_length=1, max_length=80), NFC]
    brand_voice: Annotated[str, Field(min_length=1, max_length=2_000), NFC]
    banned_words: tuple[Written, ...] = ()
    language: str = "en"
    voice: str = "default"
    target_seconds: Annotated[int, Field(ge=15, le=60)] = 30
    accounts: dict[Platform, Annotated[str, Field(min_length=1, max_length=MAX_ACCOUNT_NAME_CHARACTERS), NFC]]
    tokens: dict[Platform, str] = Field(default_factory=dict)
    hashtags: tuple[Hashtag, ...] = ()
    timezone: str = "UTC"
    posting_hours: PostingHours = PostingHours()
    slots: tuple[PostingSlot, ...] = ()
    min_distance_minutes: Annotated[int, Field(ge=0, le=1440)] = 30
    missed: MissedPolicy = "post"
    repeats: RepeatRule = RepeatRule()
    budget_usd: Annotated[Decimal, Field(ge=0)] = Decimal("1.00")
    palette: Palette = Palette()
    made_for_kids: bool = False
    reviewers: Annotated[int, Field(ge=1, le=2)] = 1
    own_briefs: Literal["allow", "refuse"] = "allow"

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
    def _valid_token_sources(cls, value: dict[Platform, str]) -> dict[Platform, str]:
        # The message never repeats the value, which may be the secret itself.
        for platform, source in value.items():
            if not TOKEN_SOURCE.fullmatch(source):
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

    def key_of(self, platform: Platform) -> ChannelKey | None:
        """What the channel says under the platform's own key. None when the platform has no key, or the channel must add it."""
        key: ChannelKey | None = getattr(self, platform) if platform.spec.channel_key is not None else None
        return key

    def has_slots(self, platform: Platform) -> bool:
        """Whether approved videos wait for a slot on that platform."""
        return any(slot.serves(platform) for slot in self.slots)

    def banned_in(self, text: str) -> list[str]:
        """The banned words that occur in `text` as whole words, ignoring case."""
        return [word for word in self.banned_words if has_word(text, word)]


def _accounts_with_tokens(given: Any) -> Any:
    """Split `youtube: {account: main, token: env:NAME}` into the account's name and the source of its token."""
    accounts = given.get("accounts") if isinstance(given, Mapping) else None
    if not isinstance(accounts, Mapping):
        return given
    given_tokens = given.get("tokens") or {}
    if not isinstance(given_tokens, Mapping):
        return given  # the field's own validation reports it
    names, tokens = dict(accounts), dict(given_tokens)
    for platform, account in accounts.items():
        if isinstance(account, Mapping):
            path = ("accounts", str(platform))
            unknown = sorted(str(key) for key in account if key not in ("account", "token"))
            if unknown or "account" not in account:
                raise MisplacedError(path, "write {account: NAME, token: env:VARIABLE}, or only the name")
            names[platform] = account["account"]
            if account.get("token") is not None:
                if platform in given_tokens:
                    raise MisplacedError((*path, "token"), f"`tokens` also has an entry for {platform}; remove one of the two")
                tokens[platform] = account["token"]
    return {**given, "accounts": names, "tokens": tokens}


# Validates a channel as people write it. A stored channel already has separate tokens, and skipping this step reads it twice as
# fast.
WRITTEN_CHANNEL: TypeAdapter[Channel] = TypeAdapter(Annotated[Channel, BeforeValidator(_accounts_with_tokens)])


class Brief(Value):
    """A person's request for a video. `publish_at`: the earliest time at which its posts may go out."""

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
        """A SHA-256 of title, angle, facts and channel. Two briefs for the same video have the same fingerprint."""
        same = [self.title.casefold().strip(), self.angle.strip(), sorted(self.facts), self.channel]
        return hashlib.sha256(json.dumps(same, ensure_ascii=False).encode()).hexdigest()


class Video(Value):
    """One video in the catalogue: its partition key, its brief and its channel."""

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
        """The file's path within the store, such as `ab/cd...mp4`."""
        return f"{self.sha256[:2]}/{self.sha256[2:]}{self.suffix}"


class Scene(Value):
    """A part of a script: the narration, and the headline shown with it, which may be empty. A headline is a complete phrase."""

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
    """A spoken sentence. `scene` counts from 0 and is -1 for the hook.

    `start` and `end` are seconds from the start of the voiceover.
    """

    text: Line
    scene: Annotated[int, Field(ge=-1)]
    start: Annotated[float, Field(ge=0)]
    end: Annotated[float, Field(gt=0)]


class Probe(Value):
    """The properties of a media file, as read from its streams. `loudness_lufs` is integrated; None when not measured."""

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
    """The output of `script`. `removed`: markup that was taken out of the model's answer, such as `scene 2: **`.

    `edited_by`: the last person who edited the texts; empty when they are the model's.
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
    """The output of `voiceover`: a WAV file (16-bit PCM) and the time of each sentence.

    `unspoken`: the sentences and words that the voice cannot pronounce. They are shown but not spoken.
    """

    kind: Literal["voiceover"] = "voiceover"
    audio: MediaFile
    seconds: float
    sentences: tuple[Sentence, ...]
    voice: str
    unspoken: tuple[str, ...] = ()


@with_post_terms
class PostWords(Value):
    """The words and settings of one platform's post. A person approves them with the master. `privacy` is in the platform's terms.

    `left_out`: hashtags and mentions that exceed the platform's limits. Reviewers see them; they are not part of the hash.
    Platforms whose posts declare something add one field each (see `terms`).
    """

    platform: Platform
    title: str
    caption: str
    privacy: str
    made_for_kids: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def terms(self) -> PostTerms | None:
        """What the post declares on its platform."""
        key = self.platform.spec.channel_key
        terms: PostTerms | None = getattr(self, self.platform) if key is not None and key.terms is not None else None
        return terms


class RenderedVideoOutput(Value):
    """The output of `rendered_video`: the master, 1080x1920 pixels, and a JPEG of a representative frame.

    `words`: the words of its posts when the master was made, which the reviewer sees. `content_sha256`: the hash of master and
    words. `not_shown`: characters that no font has. `named`: the picture shows the channel's name.
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
    """The output of `approval`. `content_sha256` is the hash of exactly what was approved (see `content_hash`).

    `words`: the words of each post. Approvals from older versions have none.
    """

    kind: Literal["approval"] = "approval"
    reviewer: str
    note: str = ""
    content_sha256: Sha256
    decided_at: datetime
    words: tuple[PostWords, ...] = ()


class VariantOutput(Value):
    """The output of `<platform>/variant`: a file within the platform's limits and the words of its post."""

    kind: Literal["variant"] = "variant"
    platform: Platform
    video: MediaFile
    probe: Probe
    how: Literal["kept", "remuxed", "transcoded"]
    title: str
    caption: str
    content_sha256: Sha256


class PostOutput(Value):
    """The output of `<platform>/post`: the published post."""

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
    """The hash that an approval is bound to. It covers the master's bytes, the script's words and the words of each post.

    Without `words` it is the hash that approvals from older versions have.
    """
    return _content_hash(video.sha256, script.title, script.caption, tuple(script.hashtags), tuple(words))


# Each stage after the approval computes this hash several times per video.
@lru_cache(maxsize=2048)
def _content_hash(sha256: str, title: str, caption: str, hashtags: tuple[str, ...], words: tuple[PostWords, ...]) -> str:
    content: list[Any] = [sha256, title, caption, list(hashtags)]
    ordered = sorted(words, key=lambda post: post.platform)
    content += [post.model_dump(mode="json", exclude={"left_out"}, exclude_none=True) for post in ordered]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
