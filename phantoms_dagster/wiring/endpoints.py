"""Where each integration is and with which key: the real service with a key, else the sandbox."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

from pydantic import SecretStr

from phantoms_dagster.domain.errors import InvalidInput, Permanent
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.wording import DEFAULT_PRIVACY
from phantoms_dagster.settings import SECRET_BYTES, Settings

_WITH_KEYS = ("openai", "shotstack")
INTEGRATIONS = (*_WITH_KEYS, *(str(platform) for platform in Platform if platform.spec.remote))


def wanted_privacy(settings: Settings) -> dict[Platform, str]:
    """Who may see finished posts, as each platform calls it. Some have a default, or the channel chooses."""
    chosen = {platform: settings.of(platform, "privacy") for platform in Platform if "privacy" in platform.spec.settings}
    return {**DEFAULT_PRIVACY, **chosen}


def current_secret(path: Path) -> str:
    """The one line of a secret's file as it is now. Raises OSError, UnicodeDecodeError or ValueError."""
    with path.open("rb") as opened:
        text = opened.read(SECRET_BYTES + 1).decode("utf-8-sig").strip()
    if len(text.splitlines()) > 1 or len(text) > SECRET_BYTES:
        raise ValueError("not one line of text")
    return text


class Endpoints:
    """Where each integration is and with which key: the real service with a key, else the sandbox."""

    def __init__(
        self,
        settings: Settings,
        connected: Callable[[], Collection[str]] = tuple,
        named: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`connected`: asks for the platforms of which an account has a token of its own, when that is first needed.

        `named`: asks for the platforms that a channel names.
        """
        self._named = named
        self._settings = settings
        self._ask = connected
        self._connected: frozenset[str] | None = None
        self._last_good: dict[str, str] = {}

    def connect(self, platforms: Collection[str]) -> None:
        """Note the platforms of which an account has a token of its own: for these the sandbox is not needed."""
        self._connected = frozenset(platforms)

    @property
    def connected(self) -> frozenset[str]:
        """The platforms of which an account has a token of its own."""
        if self._connected is None:
            self.connect(self._ask())
        return self._connected or frozenset()

    def missing(self, integration: str) -> bool:
        """Whether there is neither a key or token for all nor, on a platform, one of an account."""
        if integration in Platform and not Platform(integration).spec.remote:
            return False
        return self.secret(integration) is None and not (integration in Platform and integration in self.connected)

    def secret(self, integration: str) -> str | None:
        """The key or token that is set, as its file has it now."""
        return self._current(f"{integration}_api_key" if integration in _WITH_KEYS else f"{integration}_token")

    def secret_of(self, platform: str, name: str) -> str | None:
        """Another secret of the platform, such as its app's. The sandbox is never told one."""
        return None if self.sandboxed(platform) else self._current(f"{platform}_{name}")

    def _current(self, name: str) -> str | None:
        """The secret of that setting. Its file is read each time: workers and the daemon live longer than keys.

        A file that cannot be used for a moment, because it is being replaced, leaves the last good secret in force.
        """
        value: SecretStr | None = getattr(self._settings, name)
        variable = f"PHANTOMS_{name.upper()}"
        path = os.environ.get(f"{variable}_FILE")
        if value is None or not path or os.environ.get(variable):
            return value.get_secret_value() if value else None
        try:
            found = current_secret(Path(path).expanduser())
        except (OSError, UnicodeDecodeError, ValueError):
            found = ""
        if found:
            self._last_good[name] = found
        return self._last_good.get(name) or value.get_secret_value()

    def sandboxed(self, integration: str) -> bool:
        """Whether the sandbox answers. Raises InvalidInput when a key is missing and the sandbox is off."""
        if integration in Platform and not Platform(integration).spec.remote:
            return False
        match self._settings.sandbox:
            case "on":
                return True
            case "off" if self.missing(integration):
                kind = "API_KEY" if integration in _WITH_KEYS else "TOKEN"
                raise InvalidInput(f"PHANTOMS_{integration.upper()}_{kind} is not set and PHANTOMS_SANDBOX is off")
            case _:
                return self.missing(integration)

    @property
    def renderer(self) -> str:
        """`local` or `shotstack`, as the setting says."""
        if self._settings.renderer != "auto":
            return self._settings.renderer
        others_are_real = any(not self.missing(name) for name in INTEGRATIONS if name != "shotstack")
        return "local" if self.secret("shotstack") is None and others_are_real else "shotstack"

    @property
    def sandbox_needed(self) -> list[str]:
        """The integrations that the sandbox answers for."""
        if self._settings.sandbox == "off":
            return []
        return [name for name in INTEGRATIONS if self._used(name) and self.sandboxed(name)]

    def _used(self, integration: str) -> bool:
        if integration in Platform:
            return Platform(integration).spec.usual or integration in self._named()
        return integration != "shotstack" or self.renderer == "shotstack"

    def base_url(self, integration: str) -> str:
        """The base URL that the adapter is given."""
        if self.sandboxed(integration):
            paths = {"openai": "/openai/v1", "shotstack": "/shotstack"}
            path = Platform(integration).spec.sandbox_path if integration in Platform else paths[integration]
            return self.sandbox_url + path
        return str(getattr(self._settings, f"{integration}_base_url"))

    @property
    def sandbox_url(self) -> str:
        """Where the sandbox is. Raises InvalidInput when none is running."""
        if self._settings.sandbox_url is None:
            raise InvalidInput("no key is set and no sandbox is running: start `phantoms up`, or set PHANTOMS_SANDBOX_URL")
        return self._settings.sandbox_url.rstrip("/")

    def key(self, integration: str) -> str:
        """The key as it is now. Adapters are given this as a function, and call it for each request."""
        return "sandbox-key" if self.sandboxed(integration) else self.secret(integration) or ""

    async def token(self, platform: Platform, account: str) -> str:
        """See `ports.Tokens`."""
        if self.sandboxed(str(platform)):
            return f"sandbox-{account}"
        token = self.secret(str(platform))
        if token is None:
            message = f"{platform.title} account {account} is not connected; set PHANTOMS_{platform.upper()}_TOKEN"
            raise Permanent(message, provider=str(platform), code="not_connected")
        return token
