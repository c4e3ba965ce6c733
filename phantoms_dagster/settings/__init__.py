"""Every setting, read once from environment variables `PHANTOMS_*`. Channels are described in `channels.yaml` instead.

The settings come in groups, one model each (`groups`), and each platform has one of its own, made from its rules.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, create_model
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from phantoms_dagster.registry.addresses import service_url
from phantoms_dagster.registry.errors import CannotRegister
from phantoms_dagster.registry.platforms import SPECS as PLATFORMS
from phantoms_dagster.registry.providers import PROVIDERS
from phantoms_dagster.registry.spec import IntegrationSpec
from phantoms_dagster.settings.groups import (
    Alerts,
    Breakers,
    DagsterRuns,
    Database,
    DeskSite,
    Logs,
    Media,
    Metrics,
    OpenIdConnect,
    Pacing,
    Paths,
    ProviderEvents,
    Redis,
    Renderer,
    Retirement,
    ReviewNotices,
    SandboxChoice,
    Tokens,
    Voice,
    Web,
    Webhooks,
    Workers,
    Writer,
)
from phantoms_dagster.settings.leaves import PREFIX, Group, groups, leaves, leaves_of, put
from phantoms_dagster.settings.sources import OldNames, SecretFiles, Variables, old_names

SANDBOX_KEY = "sandbox"
RUNNING_FILE = "running.env"
# A role with that name finds our schema of the same name before `public`. Dagster would then mistake Alembic's table of our
# migrations for its own.
_OUR_NAME = re.compile(r"[^:/]+://phantoms[:@]")

_log = logging.getLogger(__name__)


def _group_of(spec: IntegrationSpec) -> Any:
    """The group of a registered provider's or platform's own settings: `PHANTOMS_<NAME>_...`."""
    fields: dict[str, Any] = {}
    for name, setting in spec.settings.items():
        kind = Annotated[setting.type, AfterValidator(service_url)] if name.endswith("_url") else setting.type
        fields[name] = (kind, Field(setting.default, description=setting.description))
    made = create_model(f"{spec.name.capitalize()}Settings", __base__=Group, __doc__=f"{spec.title}.", **fields)
    made.variables = f"{PREFIX}{spec.name.upper()}_"
    return made


class Integrations(Group):
    """The groups of registered providers and platforms, one for each that has settings of its own."""

    variables: ClassVar[str] = PREFIX


def _groups_of(name: str, text: str, specs: Mapping[str, IntegrationSpec]) -> Any:
    fields: dict[str, Any] = {spec.name: (_group_of(spec), Field(...)) for spec in specs.values() if spec.settings}
    return create_model(name, __base__=Integrations, __doc__=text, **fields)


if TYPE_CHECKING:

    class Providers(Integrations):
        """The providers that write, speak and render."""

    class Platforms(Integrations):
        """The platforms that videos are posted on."""

else:
    Providers = _groups_of("Providers", "What writes, speaks and renders: one group each.", PROVIDERS)
    Platforms = _groups_of("Platforms", "Where videos are posted: one group each.", PLATFORMS)


class Settings(BaseSettings):
    """All settings, in groups."""

    # `--help` imports this class but reads no setting. Building the validators on import would cost it 8 ms of CPU time.
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True, hide_input_in_errors=True, defer_build=True
    )

    paths: Paths
    database: Database
    redis: Redis
    media: Media
    retirement: Retirement
    sandbox: SandboxChoice
    tokens: Tokens
    writer: Writer
    voice: Voice
    renderer: Renderer
    pacing: Pacing
    breakers: Breakers
    dagster: DagsterRuns
    workers: Workers
    alerts: Alerts
    review: ReviewNotices
    webhooks: Webhooks
    provider_events: ProviderEvents
    web: Web
    desk: DeskSite
    oidc: OpenIdConnect
    metrics: Metrics
    logs: Logs
    providers: Providers
    platforms: Platforms

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """See the base class. A variable wins over its file, and both win over the values that a running stack saved."""
        del env_settings, file_secret_settings
        every_group: dict[str, Any] = {}
        for path, _ in groups(settings_cls):
            put(every_group, path, {})
        return (
            init_settings,
            Variables(settings_cls),
            SecretFiles(settings_cls),
            OldNames(settings_cls),
            Variables(settings_cls, getattr(dotenv_settings, "env_vars", {})),
            InitSettingsSource(settings_cls, every_group),
        )

    def changed(self, values: Mapping[str, Any]) -> Self:
        """Return a copy with some values changed, such as `changed({"web": {"port": 0}})`. Raises ValidationError."""
        return self.model_copy(update={name: _changed(getattr(self, name), given) for name, given in values.items()})

    def platform(self, name: str) -> Any:
        """Return a platform's settings, as in `platform("youtube").privacy`."""
        return getattr(self.platforms, name)

    def integration(self, name: str) -> Any:
        """Return a provider's or a platform's settings, as in `integration("openai").model`."""
        return getattr(self.providers if name in PROVIDERS else self.platforms, name)

    def of(self, whose: str, name: str) -> Any:
        """Return the value of one setting of a platform or a provider, as in `of("youtube", "privacy")`."""
        return getattr(self.integration(whose), name)

    @property
    def channels_path(self) -> Path:
        """The path of channels.yaml."""
        return self._in_home(self.paths.channels, "channels.yaml")

    @property
    def inbox_path(self) -> Path:
        """The folder in which new briefs are found."""
        return self._in_home(self.paths.inbox, "inbox")

    @property
    def media_path(self) -> Path:
        """The folder of the media store, or of its cache."""
        return self._in_home(self.media.folder, "media")

    def _in_home(self, configured: Path | None, default: str) -> Path:
        return (configured or self.paths.home / default).expanduser().absolute()

    def dagster_url(self) -> str | None:
        """The URL of Dagster's storage. It always names psycopg2, because dagster-postgres is written for that driver."""
        url = self.database.dagster_url or self.database.url
        if url is None:
            return None
        found = re.sub(r"^[^:/]+://", "postgresql+psycopg2://", url.get_secret_value())
        if self.database.dagster_url or "options=" in found or not _OUR_NAME.match(found):
            return found
        return f"{found}{'&' if '?' in found else '?'}options=-csearch_path%3Dpublic"


def _check_variables() -> None:
    """Raise CannotRegister if a provider's or platform's setting has the same variable as another setting."""
    taken: set[str] = set()
    for path, group in groups(Settings):
        for leaf in leaves_of(group, path):
            if leaf.variable in taken:
                raise CannotRegister(f"the setting {leaf.path[-1]!r} of {path[-1]} would be {leaf.variable}, which is taken")
            taken.add(leaf.variable)


def _changed(group: Group, values: Mapping[str, Any]) -> Group:
    inner = {name: _changed(old, values[name]) for name, old in group if isinstance(old, Group) and name in values}
    return type(group)(**{**dict(group), **values, **inner})


def grouped(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put values, given by the names of their variables (`web_port`), into groups for `Settings(**grouped(values))`."""
    found: dict[str, Any] = {}
    known = leaves(Settings)
    for name, value in values.items():
        put(found, known[name].path, value)
    return found


_check_variables()

_pinned: Settings | None = None
_read: tuple[tuple[object, ...], Settings] | None = None


def pin(settings: Settings) -> None:
    """Make `load` return these settings from now on, in this process and its forks. Reading them takes 20 ms of CPU time."""
    global _pinned  # noqa: PLW0603 - Dagster builds its parts from a file, so we cannot pass anything to them
    _pinned = settings


def load() -> Settings:
    """Return the settings of this process: environment variables, then what a running `phantoms up` saved in its data directory.

    They are read again only after one of these has changed.
    """
    global _read  # noqa: PLW0603 - as above
    if _pinned is not None:
        return _pinned
    running = Path(os.environ.get("PHANTOMS_HOME") or ".phantoms").expanduser() / RUNNING_FILE
    sources = _sources(running)
    if _read is None or _read[0] != sources:
        for old, new in old_names(os.environ):
            _log.warning("%s is now called %s. The old name still works; please use the new one.", old, new)
        # The data directory is not in the file, because it is where the file was found. So no path needs dotenv's quoting.
        home = {"home": running.parent.absolute()} if running.is_file() else {}
        _read = (sources, Settings(_env_file=running, paths=home))
    return _read[1]


def _sources(running: Path) -> tuple[object, ...]:
    """Return the current state of everything that settings are read from."""
    said = sorted(item for item in os.environ.items() if item[0].upper().startswith(PREFIX))
    files = [running.absolute(), *(Path(path).expanduser() for name, path in said if name.endswith("_FILE") and path)]
    return (*said, *((file, _state(file)) for file in files))


def _state(file: Path) -> tuple[int, int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
