"""Every setting, read once from environment variables `PHANTOMS_*`. What a channel is belongs in `channels.yaml`.

Each field's description stands in the README's table and in `phantoms doctor`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SANDBOX_KEY = "sandbox"


class Settings(BaseSettings):
    """All settings. Secrets are `SecretStr`: they print as stars."""

    model_config = SettingsConfigDict(env_prefix="PHANTOMS_", extra="ignore", frozen=True, env_ignore_empty=True)

    # --- where things live
    home: Path = Field(Path(".phantoms"), description="Data directory: embedded servers, media, inbox, logs.")
    database_url: SecretStr | None = Field(None, description="PostgreSQL URL. Unset: an embedded server is started.")
    dagster_database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL of Dagster's own tables. Default: database_url."
    )
    redis_url: SecretStr | None = Field(None, description="Redis or Valkey URL. Unset: an embedded server is started.")
    channels: Path | None = Field(None, description="Path of channels.yaml. Default: channels.yaml in the data directory.")
    inbox: Path | None = Field(None, description="Folder watched for briefs. Default: inbox/ in the data directory.")
    media: Path | None = Field(None, description="Folder of the media store. Default: media/ in the data directory.")

    # --- providers: without a key, the sandbox answers
    sandbox: Literal["auto", "on", "off"] = Field(
        "auto", description="auto: integrations without a key use the sandbox; on: all do; off: none may."
    )
    sandbox_url: str | None = Field(None, description="URL of a running sandbox. `phantoms up` sets it.")
    openai_api_key: SecretStr | None = Field(None, description="Key for scripts (OpenAI or any compatible server).")
    openai_base_url: str = Field("https://api.openai.com/v1", description="Base URL of the chat completions API.")
    openai_model: str = Field("gpt-5.1-mini", description="Model that writes the scripts.")
    openai_input_usd_per_million: float = Field(0.25, ge=0, description="Price of a million input tokens, for the cost column.")
    openai_output_usd_per_million: float = Field(2.0, ge=0, description="Price of a million output tokens, for the cost column.")
    renderer: Literal["auto", "local", "shotstack"] = Field(
        "auto", description="auto: Shotstack with a key, the sandbox's render API without any key at all, else local ffmpeg."
    )
    shotstack_api_key: SecretStr | None = Field(None, description="Key of the render API.")
    shotstack_base_url: str = Field("https://api.shotstack.io", description="Host of the render API.")
    shotstack_stage: Literal["v1", "stage"] = Field("v1", description="v1: paid production; stage: watermarked trial.")
    shotstack_usd_per_minute: float = Field(0.40, ge=0, description="Price of a rendered minute, for the cost column.")
    youtube_token: SecretStr | None = Field(None, description="OAuth access token for YouTube uploads.")
    youtube_base_url: str = Field("https://www.googleapis.com", description="Host of the YouTube APIs.")
    youtube_privacy: Literal["public", "unlisted", "private"] = Field("public", description="Visibility of finished YouTube posts.")
    tiktok_token: SecretStr | None = Field(None, description="OAuth access token for TikTok.")
    tiktok_base_url: str = Field("https://open.tiktokapis.com", description="Host of the TikTok API.")
    tiktok_privacy: str = Field("PUBLIC_TO_EVERYONE", description="Wanted privacy level; must be one that the creator offers.")
    instagram_token: SecretStr | None = Field(None, description="Access token for Instagram publishing.")
    instagram_base_url: str = Field("https://graph.facebook.com", description="Host of the Graph API.")
    instagram_upload_url: str = Field("https://rupload.facebook.com", description="Host of the resumable upload.")
    instagram_version: str = Field("v26.0", description="Graph API version.")

    # --- pace
    batch_size: int = Field(50, ge=1, le=1000, description="Most videos in one run.")
    runs_per_stage: int = Field(2, ge=1, description="Most open runs of one stage that the sensor requests.")
    in_flight: int = Field(100, ge=1, description="Most videos worked on at once in one run.")
    renders_in_flight: int = Field(1, ge=1, description="Most local ffmpeg renders at once in one process.")
    patience_seconds: float = Field(120, ge=0, description="Longest wait inside a run; a longer one is deferred to the table.")
    lease_seconds: float = Field(60, gt=0, description="A claim that is not renewed for so long is taken over.")
    attempts: int = Field(5, ge=1, description="Attempts a stage of a video has before its dead letter.")
    stage_attempts: dict[str, int] = Field({}, description='Attempts by kind of stage, as JSON: {"post": 8}.')
    pools: dict[str, dict[str, Any]] = Field(
        {}, description='Limits by pool, as JSON: {"render": {"slots": 4, "rates": [[60, 60, 5]], "daily": [500, "UTC"]}}.'
    )
    breaker_window_seconds: float = Field(30.0, gt=0, description="Breakers judge the calls of this many seconds.")
    breaker_minimum_calls: int = Field(10, ge=1, description="A breaker does not judge fewer calls than these.")
    breaker_failure_rate: float = Field(0.5, gt=0, le=1, description="Share of failed calls that opens a breaker.")
    breaker_reset_seconds: float = Field(10.0, gt=0, description="An open breaker lets one probe through after so long.")
    call_seconds: float = Field(600.0, gt=0, description="Longest a single call may take in total, its answer's body included.")
    backoff_seconds: float = Field(2.0, gt=0, description="First back-off; doubled each attempt, full jitter.")
    backoff_max_seconds: float = Field(900.0, gt=0, description="Longest back-off.")
    render_poll_seconds: float = Field(3.0, gt=0, description="Time between two looks at a running render.")

    max_runs: int = Field(-1, ge=-1, description="Most Dagster runs at once; -1: as many as there are workers.")
    pool_limit: int = Field(2, ge=1, description="Most Dagster runs of one stage that work at once.")
    run_start_timeout: int = Field(3600, ge=10, description="Seconds a run may wait for a worker and start before it is failed.")
    run_retries: int = Field(0, ge=0, description="How often Dagster repeats a run whose process died.")

    # --- run workers
    worker_slots: dict[str, int] = Field(
        {},
        description='Run workers by queue, as JSON: {"rendered_video": 2}. A queue that is not named has one; 0: none.',
    )
    worker_lease_seconds: int = Field(30, ge=3, description="A run worker that is silent for so long counts as dead.")
    worker_grace_seconds: float = Field(10.0, ge=0, description="A stopped run worker leaves its run so long, then hands it back.")

    # --- alerts
    alert_urls: Annotated[list[SecretStr], NoDecode] = Field(
        [], description="Where alerts go: Apprise URLs, comma-separated or as a JSON list. Unset: nowhere."
    )
    alert_minutes: float = Field(5.0, ge=0, description="Shortest time between two alerts; what comes in between is told together.")

    # --- web
    web_host: str = Field("127.0.0.1", description="Address that the Dagster UI and the metrics bind to.")
    web_url: str | None = Field(None, description="Where the Dagster UI is. `phantoms up` sets it.")
    web_port: int = Field(3000, ge=0, le=65535, description="Port of the Dagster UI; 0 or a taken port: any free one.")

    # --- observation
    metrics_port: int = Field(9464, ge=0, le=65535, description="Port of the Prometheus metrics; 0 or a taken port: any free one.")
    log_format: Literal["text", "json"] = Field("text", description="text: lines for people; json: one JSON object a line.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="DEBUG also logs each call to a provider.")

    @field_validator("alert_urls", mode="before")
    @classmethod
    def _several_urls(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        # A URL may hold commas itself (`?to=a,b`): only one before the next URL separates.
        return [part for url in re.split(r"[,\s]+(?=[A-Za-z][A-Za-z0-9+.-]*://)", value) if (part := url.strip(", \n\t"))]

    def path(self, name: str) -> Path:
        """The path of `channels`, `inbox` or `media`: as set, else its place in the data directory."""
        configured: Path | None = getattr(self, name)
        default = {"channels": "channels.yaml", "inbox": "inbox", "media": "media"}[name]
        return (configured or self.home / default).expanduser().absolute()

    def dagster_url(self) -> str | None:
        """The URL of Dagster's storage. It always says psycopg2: that is the driver dagster-postgres is written for."""
        url = self.dagster_database_url or self.database_url
        if url is None:
            return None
        return re.sub(r"^[^:/]+://", "postgresql+psycopg2://", url.get_secret_value())


RUNNING_FILE = "running.env"


def load() -> Settings:
    """The settings of this process: environment variables, then what a running `phantoms up` left in its data directory."""
    home = Path(os.environ.get("PHANTOMS_HOME") or ".phantoms").expanduser()
    return Settings(_env_file=home / RUNNING_FILE)
