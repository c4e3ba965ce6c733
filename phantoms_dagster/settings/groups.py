"""The groups of settings, without those of providers and platforms, which are made from their records.

Each field's description is shown in docs/settings.md and in `phantoms doctor`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from phantoms_dagster.registry.providers import RENDERERS, VOICES, WRITERS
from phantoms_dagster.settings.leaves import Group, Variable
from phantoms_dagster.settings.pools import PoolSetting

SHORTEST_SECRET = 32


class Paths(Group):
    """Paths of the files that Phantoms reads and writes."""

    variables: ClassVar[str] = "PHANTOMS_"

    home: Path = Field(Path(".phantoms"), description="Data directory: embedded servers, media, inbox, logs.")
    channels: Path | None = Field(None, description="Path of channels.yaml. Default: channels.yaml in the data directory.")
    inbox: Path | None = Field(None, description="Folder watched for briefs. Default: inbox/ in the data directory.")


class Database(Group):
    """PostgreSQL, for the tables of Phantoms and of Dagster."""

    variables: ClassVar[str] = "PHANTOMS_DATABASE_"

    password: SecretStr | None = Field(None, description="Password for PostgreSQL URLs without one.")
    url: SecretStr | None = Field(None, description="PostgreSQL URL. Unset: an embedded server is started.")
    dagster_url: Annotated[SecretStr | None, Variable("PHANTOMS_DAGSTER_DATABASE_URL")] = Field(
        None, description="PostgreSQL URL of Dagster's own tables. Default: database_url."
    )

    @field_validator("url", "dagster_url")
    @classmethod
    def _with_password(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        return with_password(value, info.data.get("password"))


class Redis(Group):
    """Redis or Valkey, for the limits and breakers that all processes share."""

    variables: ClassVar[str] = "PHANTOMS_REDIS_"

    password: SecretStr | None = Field(None, description="Password for a Redis URL without one.")
    url: SecretStr | None = Field(None, description="Redis or Valkey URL. Unset: an embedded server is started.")

    @field_validator("url")
    @classmethod
    def _with_password(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        return with_password(value, info.data.get("password"))


class Media(Group):
    """The store of video files: a folder or an object store."""

    variables: ClassVar[str] = "PHANTOMS_MEDIA_"

    folder: Annotated[Path | None, Variable("PHANTOMS_MEDIA")] = Field(
        None, description="Folder of the media store, or of its cache with media_url. Default: media/ in the data directory."
    )
    url: str | None = Field(None, description="Object store for media, by the S3 protocol: s3://bucket/prefix. Unset: a folder.")
    endpoint_url: str | None = Field(
        None, description="Endpoint of the object store (MinIO, R2, Ceph, Garage). Unset: AWS_ENDPOINT_URL, else AWS."
    )
    region: str | None = Field(None, description="Region of the object store. Unset: AWS_REGION, else us-east-1.")
    access_key_id: SecretStr | None = Field(
        None, description="Key id for the object store. Unset: AWS_ACCESS_KEY_ID, else the role of the container or machine."
    )
    secret_access_key: SecretStr | None = Field(None, description="Secret of that key id.")
    cache_gb: float = Field(
        10.0, gt=0, description="Maximum size of this machine's cache of the object store, in gigabytes. Files in use do not count."
    )

    @field_validator("url")
    @classmethod
    def _a_bucket(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w.-]+)*/?", value, re.ASCII):
            raise ValueError("should read s3://bucket or s3://bucket/prefix; keys have settings of their own")
        return value

    @field_validator("endpoint_url")
    @classmethod
    def _an_endpoint(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w./-]*)?", value, re.ASCII):
            raise ValueError("should read https://host:port, or http:// inside a network that you trust")
        return value


class Retirement(Group):
    """When finished videos leave Dagster, and which of their files are kept."""

    variables: ClassVar[str] = "PHANTOMS_RETIRE_"

    days: float = Field(
        30, ge=0, le=36_500, description="Days after which a finished video leaves Dagster's partitions. Its rows stay. 0: never."
    )
    keep: Annotated[Literal["all", "master", "none"], Variable("PHANTOMS_MEDIA_KEEP")] = Field(
        "all", description="Which files of a retired video are kept: all, master (the rendered video and its thumbnail) or none."
    )
    keep_days: Annotated[float, Variable("PHANTOMS_MEDIA_KEEP_DAYS")] = Field(
        7, ge=0, le=36_500, description="Days after its retirement until a video's other files are deleted."
    )


class Tokens(Group):
    """The tokens of connected accounts."""

    variables: ClassVar[str] = "PHANTOMS_TOKEN_"

    keys: SecretStr | None = Field(
        None,
        description="Encrypt the tokens of connected accounts; several, separated by commas, the newest first, the same on all "
        "machines. Unset: a file of our own, token.keys in the data directory.",
    )


class SandboxChoice(Group):
    """Which services the sandbox replaces."""

    variables: ClassVar[str] = "PHANTOMS_SANDBOX_"

    mode: Annotated[Literal["auto", "on", "off"], Variable("PHANTOMS_SANDBOX")] = Field(
        "auto", description="auto: integrations without a key use the sandbox; on: all do; off: none does."
    )
    url: str | None = Field(None, description="URL of a running sandbox. `phantoms up` sets it.")


class Writer(Group):
    """The provider that writes scripts."""

    variables: ClassVar[str] = "PHANTOMS_WRITER_"

    choice: Annotated[str, Variable("PHANTOMS_WRITER"), AfterValidator(WRITERS.chosen)] = Field(
        "openai", description=f"Provider that writes scripts: {', '.join(WRITERS.specs)}."
    )


class Voice(Group):
    """The provider that speaks scripts."""

    variables: ClassVar[str] = "PHANTOMS_VOICE_"

    choice: Annotated[str, Variable("PHANTOMS_VOICE"), AfterValidator(VOICES.chosen)] = Field(
        "hibari", description=f"Provider that speaks scripts: {', '.join(VOICES.specs)}."
    )


class Renderer(Group):
    """The provider that renders videos, and how long a render may take."""

    variables: ClassVar[str] = "PHANTOMS_RENDER_"

    choice: Annotated[str, Variable("PHANTOMS_RENDERER"), AfterValidator(RENDERERS.chosen)] = Field(
        "auto",
        description=f"Provider that renders videos: auto, {', '.join(RENDERERS.specs)}. "
        "auto: a render API whose key is set; without any key at all, the sandbox's; else local ffmpeg.",
    )
    in_flight: Annotated[int, Variable("PHANTOMS_RENDERS_IN_FLIGHT")] = Field(
        1, ge=1, description="Maximum number of local ffmpeg renders at once in one process."
    )
    poll_seconds: float = Field(3.0, gt=0, description="Longest time between two checks of a running render.")
    deadline_minutes: float = Field(
        60.0, gt=0, description="A render that has not finished after this time is booked as spent, and ordered again."
    )
    lost_seconds: Annotated[float, Variable("PHANTOMS_LOST_RENDER_SECONDS")] = Field(
        1800.0, gt=0, description="An order for a render that got no answer is booked as spent after this time, and repeated."
    )


class Pacing(Group):
    """How many videos are in work at once, how long they wait, and how often a failure is tried again."""

    variables: ClassVar[str] = "PHANTOMS_"

    batch_size: int = Field(50, ge=1, le=1000, description="Maximum number of videos in one run.")
    runs_per_stage: int = Field(2, ge=1, description="Maximum number of open runs that the sensors request for one stage.")
    chain_videos: int = Field(
        3,
        ge=0,
        description="Up to this many ready videos go from script to render, or from approval to posts, in one run. "
        "0: one run for each stage.",
    )
    batch_wait_seconds: float = Field(
        5.0, ge=0, description="How long an incomplete batch waits for videos that are still in the previous stage."
    )
    in_flight: int = Field(100, ge=1, description="Maximum number of videos in work at once in one run.")
    max_wait_seconds: float = Field(
        120, ge=0, description="Longest total time that a video may wait inside a run. A longer wait is deferred."
    )
    lease_seconds: float = Field(60, gt=0, description="A claim that is not renewed within this time is taken over.")
    attempts: int = Field(5, ge=1, description="Attempts that a stage of a video has before it becomes a dead letter.")
    stage_attempts: dict[str, int] = Field({}, description='Attempts by kind of stage, as JSON: {"post": 8}.')
    give_up_minutes: float = Field(
        30.0,
        ge=0,
        description="A temporary failure becomes a dead letter no earlier than this after the first one. 0: only attempts count.",
    )
    give_up_alone_hours: float = Field(
        72.0,
        ge=0,
        description="The same, if no other video got through that stage in the meantime, because then the service may be down.",
    )
    backoff_seconds: float = Field(2.0, gt=0, description="First back-off. It doubles with each attempt and has full jitter.")
    backoff_max_seconds: float = Field(900.0, gt=0, description="Longest back-off.")
    call_seconds: float = Field(
        600.0, gt=0, description="Longest time that one call may take in total, including the body of the answer."
    )
    pools: dict[str, PoolSetting] = Field(
        {}, description='Limits by pool, as JSON: {"render": {"slots": 4, "rates": [[60, 60, 5]], "daily": [500, "UTC"]}}.'
    )


class Breakers(Group):
    """When a breaker stops calls to a failing service."""

    variables: ClassVar[str] = "PHANTOMS_BREAKER_"

    window_seconds: float = Field(30.0, gt=0, description="A breaker counts the calls of the last seconds, this many.")
    minimum_calls: int = Field(10, ge=1, description="A breaker never opens on fewer calls than this.")
    failure_rate: float = Field(0.5, gt=0, le=1, description="Share of failed calls that opens a breaker.")
    reset_seconds: float = Field(10.0, gt=0, description="An open breaker lets one probe through after this time.")


class DagsterRuns(Group):
    """How many runs Dagster starts, and when it gives up on one."""

    variables: ClassVar[str] = "PHANTOMS_DAGSTER_"

    fast_paths: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Use of Dagster's private names. auto: where they are as expected; off: only public names, which is slower; "
        "on: as auto, but stop when a name has changed.",
    )
    pools: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {},
        description='Most Dagster runs at once by Dagster pool, as JSON: {"render": 1}. Other pools: one for each run worker.',
    )
    max_runs: Annotated[int, Variable("PHANTOMS_MAX_RUNS")] = Field(
        -1, ge=-1, description="Maximum number of Dagster runs at once. -1: one for each worker."
    )
    run_start_timeout: Annotated[int, Variable("PHANTOMS_RUN_START_TIMEOUT")] = Field(
        3600, ge=10, description="Seconds within which a run must get a worker and start. After that it fails."
    )
    run_retries: Annotated[int, Variable("PHANTOMS_RUN_RETRIES")] = Field(
        0, ge=0, description="How often Dagster repeats a run after its process died."
    )


class Workers(Group):
    """The processes that carry out runs."""

    variables: ClassVar[str] = "PHANTOMS_WORKER_"

    slots: dict[str, int] = Field(
        {},
        description='Run workers by queue, as JSON: {"rendered_video": 2}. Other queues have one each. 0: none.',
    )
    lease_seconds: int = Field(30, ge=3, description="A run worker counts as dead after this time without a sign of life.")
    grace_seconds: float = Field(
        10.0,
        ge=0,
        description="A run worker that is stopped gives its run this time to end. Then it puts the run back into the queue.",
    )


class Alerts(Group):
    """Where alerts about failures go, and how often."""

    variables: ClassVar[str] = "PHANTOMS_ALERT_"

    urls: Annotated[list[SecretStr], NoDecode] = Field(
        [], description="Apprise URLs that alerts go to, comma-separated or as a JSON list. Unset: no alerts."
    )
    minutes: float = Field(5.0, ge=0, description="Shortest time between two alerts. Failures in between share one alert.")

    @field_validator("urls", mode="before")
    @classmethod
    def _several_urls(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except ValueError:
                raise ValueError("is no JSON list") from None
        # A URL may contain commas (`?to=a,b`). Only a comma before the next URL separates.
        return [part for url in re.split(r"[,\s]+(?=[A-Za-z][A-Za-z0-9+.-]*://)", value) if (part := url.strip(", \n\t"))]


class ReviewNotices(Group):
    """Notices about videos that wait for approval."""

    variables: ClassVar[str] = "PHANTOMS_REVIEW_"

    notice_minutes: float = Field(
        5.0,
        ge=0,
        description="Videos that become ready for review within this many minutes share one notice. It goes to the same URLs.",
    )
    reminder_hours: float = Field(24.0, ge=0, description="Hours between reminders while videos wait for approval. 0 sends none.")


class Webhooks(Group):
    """Signed messages to other programs."""

    variables: ClassVar[str] = "PHANTOMS_WEBHOOK_"

    targets: Literal["public", "loopback", "private"] = Field(
        "loopback",
        description="Addresses that webhooks may go to. public: only public ones; loopback: also this machine; "
        "private: also private networks.",
    )


class ProviderEvents(Group):
    """Events that platforms and providers send to the desk."""

    variables: ClassVar[str] = "PHANTOMS_PROVIDER_EVENTS_"

    url: str | None = Field(
        None,
        description="Public address of the desk, such as https://desk.example.org, to which TikTok, Instagram and others send "
        "events. Unset: none is accepted, and everything is looked up at its own time.",
    )
    secret: SecretStr | None = Field(
        None,
        description="Signs the addresses for services that do not sign their events: at least 32 characters, the same on all "
        "machines. Unset: Phantoms makes one and keeps it in a file.",
    )

    @field_validator("url")
    @classmethod
    def _an_origin(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[\w.:\[\]-]+/?", value, re.ASCII):
            raise ValueError("should read https://host, without a path")
        return value.rstrip("/") if value else value

    @field_validator("secret")
    @classmethod
    def _long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < SHORTEST_SECRET:
            raise ValueError(f"needs at least {SHORTEST_SECRET} characters; make one with `openssl rand -hex 32`")
        return value


class Web(Group):
    """The Dagster UI."""

    variables: ClassVar[str] = "PHANTOMS_WEB_"

    host: str = Field("127.0.0.1", description="Address on which the Dagster UI and the metrics listen.")
    url: str | None = Field(None, description="URL of the Dagster UI. `phantoms up` sets it.")
    port: int = Field(
        3000,
        ge=0,
        le=65535,
        description="Port of the Dagster UI. Unset: the last port used, at first 3000. 0, or a port in use: any free port.",
    )


class DeskSite(Group):
    """The desk, where people review videos."""

    variables: ClassVar[str] = "PHANTOMS_DESK_"

    host: str = Field(
        "127.0.0.1",
        description="Address on which the desk listens. An address that other machines can reach requires at least one user.",
    )
    port: int = Field(
        4000,
        ge=0,
        le=65535,
        description="Port of the desk. Unset: the last port used, at first 4000. 0, or a port in use: any free port.",
    )
    url: str | None = Field(
        None, description="URL at which people reach the desk, such as https://desk.example.org. `phantoms up` sets it."
    )
    undo_seconds: float = Field(10.0, ge=0, le=3600, description="How long a decision can be undone at the desk. 0: not at all.")
    session_hours: float = Field(12.0, gt=0, le=8760, description="How long a log-in lasts.")
    secret: SecretStr | None = Field(
        None,
        description="Key that signs cookies and media links: at least 32 characters, the same for all desks. "
        "Unset: Phantoms makes one and keeps it in a file.",
    )


class OpenIdConnect(Group):
    """Log-in to the desk through an identity provider (OpenID Connect)."""

    variables: ClassVar[str] = "PHANTOMS_OIDC_"

    issuer: str | None = Field(
        None, description="URL of the OpenID Connect provider, such as https://login.example.org/realms/studio."
    )
    client_id: str | None = Field(None, description="Client id of the desk at that provider.")
    client_secret: SecretStr | None = Field(
        None, description="Client secret of the desk at that provider. Without it, log-in relies on PKCE alone."
    )
    role_claim: str = Field(
        "roles", min_length=1, description="Claim with people's roles. Dots lead into nested claims, as in `realm_access.roles`."
    )
    roles: str = Field(
        "viewer=viewer,reviewer=reviewer,operator=operator",
        description="Roles of the provider and of the desk, such as newsroom=reviewer,leads=operator. The highest one counts.",
    )
    name_claim: str = Field(
        "preferred_username", min_length=1, description="Claim with people's names, such as email (which must be verified)."
    )


class Metrics(Group):
    """Metrics for Prometheus."""

    variables: ClassVar[str] = "PHANTOMS_METRICS_"

    port: int = Field(
        9464,
        ge=0,
        le=65535,
        description="Port of the metrics. Unset: the last port used, at first 9464. 0, or a port in use: any free port.",
    )


class Logs(Group):
    """What processes log, and in which format."""

    variables: ClassVar[str] = "PHANTOMS_LOG_"

    format: Literal["text", "json"] = Field("text", description="text: lines for people; json: one JSON object for each line.")
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="DEBUG also logs each call to a provider.")


def with_password(url: SecretStr | None, password: SecretStr | None) -> SecretStr | None:
    """Return the URL with the password added, unless it has one already."""
    if not url or not password:
        return url
    scheme, _, rest = url.get_secret_value().partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, _, host = authority.rpartition("@")
    if ":" in user or not rest:
        return url
    return SecretStr(f"{scheme}://{user}:{quote(password.get_secret_value(), safe='')}@{host}{rest[len(authority) :]}")
