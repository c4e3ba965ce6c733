"""Every setting, read once from environment variables `PHANTOMS_*`. What a channel is belongs in `channels.yaml`.

Each field's description is shown in docs/settings.md and in `phantoms doctor`.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationInfo, create_model, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from phantoms_dagster.registry.errors import CannotRegister
from phantoms_dagster.registry.integrations import INTEGRATIONS
from phantoms_dagster.registry.providers import KINDS, RENDERERS, VOICES, WRITERS

SANDBOX_KEY = "sandbox"
SECRET_BYTES = 65_536
# What settings were called before. The old variable still works where the new one is not set, and a warning names the new one.
RENAMED = {"fuse_videos": "chain_videos", "gather_seconds": "batch_wait_seconds", "patience_seconds": "max_wait_seconds"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnreadableSecret:
    """Stands for a secret whose file cannot be used. Its validation fails with the reason, beside whatever else is wrong."""

    reason: str


class SecretFiles(PydanticBaseSettingsSource):
    """Reads a secret from the file that `<VARIABLE>_FILE` names, as container images do. An empty file is an unset secret.

    What was given as the file's name is never repeated: it may be the secret itself, in the wrong place.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """See the base class."""
        variable = f"{self.config['env_prefix']}{field_name.upper()}_FILE"
        path = os.environ.get(variable) if is_secret(field.annotation) else None
        return (_secret_in(path, variable, one_line=field.annotation != list[SecretStr]) if path else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        """The secrets that files give."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value}


class Environment(EnvSettingsSource):
    """Reads the variables. One whose JSON cannot be read fails in its validation, beside whatever else is wrong."""

    def prepare_field_value(self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool) -> Any:
        """See the base class."""
        try:
            return super().prepare_field_value(field_name, field, value, value_is_complex)
        except ValueError:
            return UnreadableSecret("is no JSON")


class OldNames(Environment):
    """Reads the variables by the names that they had before (`RENAMED`)."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """See the base class."""
        old = next((old for old, new in RENAMED.items() if new == field_name), None)
        return (self.env_vars.get(f"phantoms_{old}") if old else None), field_name, self.field_is_complex(field)


def old_names(environment: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Variables with a name of before, each with the name that it has now."""
    for variable in sorted(environment):
        new = RENAMED.get(variable.upper().removeprefix("PHANTOMS_").lower())
        if new is not None and variable.upper().startswith("PHANTOMS_"):
            yield variable, f"PHANTOMS_{new.upper()}"


def is_secret(annotation: Any) -> bool:
    """Whether a setting of that type is a secret, or a list of them."""
    return annotation is SecretStr or any(is_secret(part) for part in get_args(annotation))


def _secret_in(path: str, variable: str, *, one_line: bool) -> str | UnreadableSecret:
    file = f"the file that {variable} names"
    try:
        with Path(path).expanduser().open("rb") as opened:
            content = opened.read(SECRET_BYTES + 1)
        text = content.decode("utf-8-sig").rstrip("\r\n")
    except OSError as error:
        who = "; the user that Phantoms runs as must be able to read it" if isinstance(error, PermissionError) else ""
        return UnreadableSecret(f"{file} cannot be read: {error.strerror}{who}")
    except UnicodeDecodeError:
        return UnreadableSecret(f"{file} is not text in UTF-8")
    if len(content) > SECRET_BYTES:
        return UnreadableSecret(f"{file} is larger than {SECRET_BYTES} bytes")
    if one_line and len(text.splitlines()) > 1:
        return UnreadableSecret(f"{file} has more than one line")
    return text


class CoreSettings(BaseSettings):
    """The settings that are neither a platform's nor a provider's. Secrets are `SecretStr`: they print as stars."""

    model_config = SettingsConfigDict(
        env_prefix="PHANTOMS_", extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    # --- where things live
    home: Path = Field(Path(".phantoms"), description="Data directory: embedded servers, media, inbox, logs.")
    database_password: SecretStr | None = Field(None, description="Password for the PostgreSQL URLs that have none.")
    database_url: SecretStr | None = Field(None, description="PostgreSQL URL. Unset: an embedded server is started.")
    dagster_database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL of Dagster's own tables. Default: database_url."
    )
    redis_password: SecretStr | None = Field(None, description="Password for a Redis URL that has none.")
    redis_url: SecretStr | None = Field(None, description="Redis or Valkey URL. Unset: an embedded server is started.")
    channels: Path | None = Field(None, description="Path of channels.yaml. Default: channels.yaml in the data directory.")
    inbox: Path | None = Field(None, description="Folder watched for briefs. Default: inbox/ in the data directory.")
    media: Path | None = Field(
        None, description="Folder of the media store, or of its cache with media_url. Default: media/ in the data directory."
    )
    media_url: str | None = Field(
        None, description="Object store of the media, by the S3 protocol: s3://bucket/prefix. Unset: a folder."
    )
    media_endpoint_url: str | None = Field(
        None, description="Endpoint of the object store (MinIO, R2, Ceph, Garage). Unset: AWS_ENDPOINT_URL, else AWS."
    )
    media_region: str | None = Field(None, description="Region of the object store. Unset: AWS_REGION, else us-east-1.")
    media_access_key_id: SecretStr | None = Field(
        None, description="Key id for the object store. Unset: AWS_ACCESS_KEY_ID, else the role of the container or machine."
    )
    media_secret_access_key: SecretStr | None = Field(None, description="Secret of that key id.")
    media_cache_gb: float = Field(
        10.0, gt=0, description="Most gigabytes that this machine keeps of the object store, beside the files in use."
    )

    # --- providers: without a key, the sandbox answers
    sandbox: Literal["auto", "on", "off"] = Field(
        "auto", description="auto: integrations without a key use the sandbox; on: all do; off: none may."
    )
    sandbox_url: str | None = Field(None, description="URL of a running sandbox. `phantoms up` sets it.")
    writer: str = Field("openai", description=f"What writes the scripts: {', '.join(WRITERS.specs)}.")
    voice: str = Field("hibari", description=f"What speaks the scripts: {', '.join(VOICES.specs)}.")
    renderer: str = Field(
        "auto",
        description=f"What renders: auto, {', '.join(RENDERERS.specs)}. "
        "auto: a render API whose key is set; without any key at all, the sandbox's; else local ffmpeg.",
    )

    # --- pace
    batch_size: int = Field(50, ge=1, le=1000, description="Most videos in one run.")
    runs_per_stage: int = Field(2, ge=1, description="Most open runs of one stage that the sensors request.")
    chain_videos: int = Field(
        3,
        ge=0,
        description="Up to this many ready videos go from script to render, or approval to posts, in one run; 0: a run a stage.",
    )
    batch_wait_seconds: float = Field(
        5.0, ge=0, description="How long a batch that is not full waits for the videos of a run of the stage before."
    )
    in_flight: int = Field(100, ge=1, description="Most videos worked on at once in one run.")
    renders_in_flight: int = Field(1, ge=1, description="Most local ffmpeg renders at once in one process.")
    max_wait_seconds: float = Field(
        120, ge=0, description="Longest that a video may wait inside a run, in all; a longer wait is deferred."
    )
    lease_seconds: float = Field(60, gt=0, description="A claim that is not renewed within this time is taken over.")
    attempts: int = Field(5, ge=1, description="Attempts a stage of a video has before its dead letter.")
    give_up_minutes: float = Field(
        30.0, ge=0, description="A passing failure becomes a dead letter no sooner than this after the first; 0: by attempts alone."
    )
    stage_attempts: dict[str, int] = Field({}, description='Attempts by kind of stage, as JSON: {"post": 8}.')
    pools: dict[str, dict[str, Any]] = Field(
        {}, description='Limits by pool, as JSON: {"render": {"slots": 4, "rates": [[60, 60, 5]], "daily": [500, "UTC"]}}.'
    )
    breaker_window_seconds: float = Field(30.0, gt=0, description="Breakers judge the calls of this many seconds.")
    breaker_minimum_calls: int = Field(10, ge=1, description="A breaker does not judge fewer calls than these.")
    breaker_failure_rate: float = Field(0.5, gt=0, le=1, description="Share of failed calls that opens a breaker.")
    breaker_reset_seconds: float = Field(10.0, gt=0, description="An open breaker lets one probe through after this time.")
    call_seconds: float = Field(600.0, gt=0, description="Longest a single call may take in total, its answer's body included.")
    backoff_seconds: float = Field(2.0, gt=0, description="First back-off; doubled each attempt, full jitter.")
    backoff_max_seconds: float = Field(900.0, gt=0, description="Longest back-off.")
    render_poll_seconds: float = Field(3.0, gt=0, description="Longest time between two looks at a running render.")
    render_deadline_minutes: float = Field(
        60.0, gt=0, description="A render that has not ended after this long is booked as spent and made again."
    )
    lost_render_seconds: float = Field(
        1800.0, gt=0, description="A render whose order got no answer is booked as spent after this time, and made again."
    )

    dagster_fast_paths: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Use of Dagster's private names. auto: where they are as expected; off: public names alone, which is slower; "
        "on: as auto, but stop when a name has changed.",
    )
    max_runs: int = Field(-1, ge=-1, description="Most Dagster runs at once; -1: as many as there are workers.")
    dagster_pools: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {},
        description='Most Dagster runs at once by Dagster pool, as JSON: {"render": 1}. Others: as many as there are run workers.',
    )
    run_start_timeout: int = Field(3600, ge=10, description="Seconds a run may wait for a worker and start before it is failed.")
    run_retries: int = Field(0, ge=0, description="How often Dagster repeats a run whose process died.")

    # --- run workers
    worker_slots: dict[str, int] = Field(
        {},
        description='Run workers by queue, as JSON: {"rendered_video": 2}. A queue that is not named has one; 0: none.',
    )
    worker_lease_seconds: int = Field(30, ge=3, description="A run worker that is silent for this time counts as dead.")
    worker_grace_seconds: float = Field(
        10.0, ge=0, description="A stopped run worker gives its run this time to end, then hands it back."
    )

    # --- retirement
    retire_days: float = Field(
        30, ge=0, le=36_500, description="Days after its end that a video leaves Dagster's partitions; its rows stay. 0: never."
    )
    media_keep: Literal["all", "master", "none"] = Field(
        "all", description="What stays of a retired video's files: all, master (the rendered video and its thumbnail) or none."
    )
    media_keep_days: float = Field(7, ge=0, le=36_500, description="Days after its retirement that a video's other files go.")

    # --- alerts
    alert_urls: Annotated[list[SecretStr], NoDecode] = Field(
        [], description="Where alerts go: Apprise URLs, comma-separated or as a JSON list. Unset: nowhere."
    )
    alert_minutes: float = Field(5.0, ge=0, description="Shortest time between two alerts; what comes in between is told together.")

    review_notice_minutes: float = Field(
        5.0, ge=0, description="Minutes to gather films that become ready for review into one notice. It goes to the same URLs."
    )
    review_reminder_hours: float = Field(
        24.0, ge=0, description="Hours between reminders while films wait for approval. 0 sends none."
    )
    webhook_targets: Literal["public", "loopback", "private"] = Field(
        "loopback",
        description="Where webhooks may go. public: public addresses; loopback: this machine, too; private: private networks, too.",
    )

    # --- web
    web_host: str = Field("127.0.0.1", description="Address that the Dagster UI and the metrics bind to.")
    web_url: str | None = Field(None, description="Where the Dagster UI is. `phantoms up` sets it.")
    web_port: int = Field(
        3000,
        ge=0,
        le=65535,
        description="Port of the Dagster UI. Unset: the one that it had before, at first 3000. 0, or a taken one: any free one.",
    )

    # --- the desk
    desk_host: str = Field("127.0.0.1", description="Address that the desk binds to. Anything but this machine needs a user first.")
    desk_port: int = Field(
        4000,
        ge=0,
        le=65535,
        description="Port of the desk. Unset: the one that it had before, at first 4000. 0, or a taken one: any free one.",
    )
    desk_url: str | None = Field(
        None, description="Where people reach the desk, such as https://desk.example.org. `phantoms up` sets it."
    )
    desk_undo_seconds: float = Field(
        10.0, ge=0, le=3600, description="How long a decision can be undone at the desk; 0: not at all."
    )
    desk_session_hours: float = Field(12.0, gt=0, le=8760, description="How long a log-in lasts.")
    desk_secret: SecretStr | None = Field(
        None,
        description="Signs cookies and media links; 32 characters or more, the same for all desks. Unset: a file of our own.",
    )

    oidc_issuer: str | None = Field(
        None, description="OpenID Connect provider that people log in by, such as https://login.example.org/realms/studio."
    )
    oidc_client_id: str | None = Field(None, description="Name of the desk at that provider.")
    oidc_client_secret: SecretStr | None = Field(
        None, description="Secret of the desk at that provider. Without it the log-in relies on PKCE alone."
    )
    oidc_role_claim: str = Field(
        "roles", min_length=1, description="Claim that has people's roles; with dots inside others, as in `realm_access.roles`."
    )
    oidc_roles: str = Field(
        "viewer=viewer,reviewer=reviewer,operator=operator",
        description="The provider's roles and those at the desk, such as newsroom=reviewer,leads=operator. The highest counts.",
    )
    oidc_name_claim: str = Field(
        "preferred_username", min_length=1, description="Claim that has people's names, such as email (which must be verified)."
    )

    # --- observation
    metrics_port: int = Field(
        9464,
        ge=0,
        le=65535,
        description="Port of the metrics. Unset: the one that they had before, at first 9464. 0, or a taken one: any free one.",
    )
    log_format: Literal["text", "json"] = Field("text", description="text: lines for people; json: one JSON object a line.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="DEBUG also logs each call to a provider.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """See the base class. A variable wins over its file, both over what a running stack left."""
        del env_settings, file_secret_settings
        return init_settings, Environment(settings_cls), SecretFiles(settings_cls), OldNames(settings_cls), dotenv_settings

    @field_validator("*", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        if isinstance(value, UnreadableSecret):
            raise ValueError(value.reason)
        return value

    @field_validator("writer", "voice", "renderer")
    @classmethod
    def _registered(cls, value: str, info: ValidationInfo) -> str:
        return {kind.name: kind for kind in KINDS}[str(info.field_name)].chosen(value)

    @field_validator("database_url", "dagster_database_url", "redis_url")
    @classmethod
    def _with_password(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        password = info.data.get("redis_password" if info.field_name == "redis_url" else "database_password")
        return _completed(value, password) if value and password else value

    @field_validator("media_url")
    @classmethod
    def _a_bucket(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w.-]+)*/?", value, re.ASCII):
            raise ValueError("should read s3://bucket or s3://bucket/prefix; keys have settings of their own")
        return value

    @field_validator("media_endpoint_url")
    @classmethod
    def _an_endpoint(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w./-]*)?", value, re.ASCII):
            raise ValueError("should read https://host:port, or http:// inside a network that you trust")
        return value

    @field_validator("alert_urls", mode="before")
    @classmethod
    def _several_urls(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except ValueError:
                raise ValueError("is no JSON list") from None
        # A URL may hold commas itself (`?to=a,b`): only one before the next URL separates.
        return [part for url in re.split(r"[,\s]+(?=[A-Za-z][A-Za-z0-9+.-]*://)", value) if (part := url.strip(", \n\t"))]

    def path(self, name: str) -> Path:
        """The path of `channels`, `inbox` or `media`: as set, else its place in the data directory."""
        configured: Path | None = getattr(self, name)
        default = {"channels": "channels.yaml", "inbox": "inbox", "media": "media"}[name]
        return (configured or self.home / default).expanduser().absolute()

    def of(self, whose: str, name: str) -> Any:
        """The value of a platform's or a provider's own setting, as `of("youtube", "privacy")`."""
        return getattr(self, f"{whose}_{name}")

    def dagster_url(self) -> str | None:
        """The URL of Dagster's storage. It always says psycopg2: that is the driver dagster-postgres is written for."""
        url = self.dagster_database_url or self.database_url
        if url is None:
            return None
        found = re.sub(r"^[^:/]+://", "postgresql+psycopg2://", url.get_secret_value())
        if self.dagster_database_url or "options=" in found or not _OUR_NAME.match(found):
            return found
        return f"{found}{'&' if '?' in found else '?'}options=-csearch_path%3Dpublic"


def _registered_fields() -> dict[str, Any]:
    """The settings of all providers and platforms. Raises CannotRegister for one whose variable is another's."""
    found: dict[str, Any] = {}
    for spec in INTEGRATIONS.values():
        for name, setting in spec.settings.items():
            field = f"{spec.name}_{name}"
            if field in found or field in CoreSettings.model_fields:
                raise CannotRegister(f"the setting {name!r} of {spec.name} would be PHANTOMS_{field.upper()}, which is taken")
            found[field] = (setting.type, Field(setting.default, description=setting.description))
    return found


if TYPE_CHECKING:

    class Settings(CoreSettings):
        """All settings."""

else:
    Settings = create_model(
        "Settings",
        __base__=CoreSettings,
        __doc__="All settings: those above, each provider's and each platform's, as they say them.",
        **_registered_fields(),
    )

# A role of that name finds our schema of that name before `public`, and in it Alembic's table of our migrations, which Dagster
# would take for its own.
_OUR_NAME = re.compile(r"[^:/]+://phantoms[:@]")


def _completed(url: SecretStr, password: SecretStr) -> SecretStr:
    """The URL with the password, unless it has one."""
    scheme, _, rest = url.get_secret_value().partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, _, host = authority.rpartition("@")
    if ":" in user or not rest:
        return url
    return SecretStr(f"{scheme}://{user}:{quote(password.get_secret_value(), safe='')}@{host}{rest[len(authority) :]}")


RUNNING_FILE = "running.env"


_pinned: Settings | None = None
_read: tuple[tuple[object, ...], Settings] | None = None


def pin(settings: Settings) -> None:
    """Let `load` answer with these from now on, in this process and those forked from it: reading them costs 20 CPU-ms."""
    global _pinned  # noqa: PLW0603 - Dagster makes its parts from a file, so nothing can be handed to them
    _pinned = settings


def load() -> Settings:
    """The settings of this process: environment variables, then what a running `phantoms up` left in its data directory.

    Read anew only when one of these is not what it was.
    """
    global _read  # noqa: PLW0603 - as above
    if _pinned is not None:
        return _pinned
    running = Path(os.environ.get("PHANTOMS_HOME") or ".phantoms").expanduser() / RUNNING_FILE
    sources = _sources(running)
    if _read is None or _read[0] != sources:
        # The folder is not in the file: it is where the file was found, and no path has to survive dotenv's quoting.
        found = running.is_file()
        for old, new in old_names(os.environ):
            _log.warning("%s is now called %s. The old name still works; please use the new one.", old, new)
        _read = (sources, Settings(_env_file=running, home=running.parent.absolute()) if found else Settings(_env_file=running))
    return _read[1]


def _sources(running: Path) -> tuple[object, ...]:
    """What the settings would be read from, as it is now."""
    said = sorted(item for item in os.environ.items() if item[0].upper().startswith("PHANTOMS_"))
    files = [running.absolute(), *(Path(path).expanduser() for name, path in said if name.endswith("_FILE") and path)]
    return (*said, *((file, _state(file)) for file in files))


def _state(file: Path) -> tuple[int, int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
