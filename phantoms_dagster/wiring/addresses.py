"""Where people reach the desk."""

from __future__ import annotations

from phantoms_dagster.settings import Settings


def desk_url(settings: Settings) -> str:
    """The desk's address, as messages and webhooks name it. It ends with a slash when the settings do not say otherwise."""
    return settings.desk_url or local_desk_url(settings)


def local_desk_url(settings: Settings) -> str:
    """The address that the desk binds to."""
    host = f"[{settings.desk_host}]" if ":" in settings.desk_host else settings.desk_host
    return f"http://{host}:{settings.desk_port}/"
