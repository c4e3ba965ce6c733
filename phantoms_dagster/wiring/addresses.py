"""The address at which people reach the desk."""

from __future__ import annotations

from phantoms_dagster.settings import Settings


def desk_url(settings: Settings) -> str:
    """The desk's address for messages and webhooks: the setting, else the local one, which ends with a slash."""
    return settings.desk.url or local_desk_url(settings)


def local_desk_url(settings: Settings) -> str:
    """The address that the desk binds to."""
    host = f"[{settings.desk.host}]" if ":" in settings.desk.host else settings.desk.host
    return f"http://{host}:{settings.desk.port}/"
