"""What a shell completes: keys of videos. It reads the database with the driver alone, so that a Tab is answered at once."""

from __future__ import annotations

import re

MOST = 50
_SECONDS = 2
_KEYS = """
    SELECT key FROM phantoms.videos WHERE strpos(key, %(part)s) > 0
    ORDER BY NOT starts_with(key, %(part)s), id DESC LIMIT %(most)s
"""


def complete_video(incomplete: str) -> list[str]:
    """The newest keys that begin with what is typed; those that contain it when none begins so.

    Empty when there is no database or it does not answer: a shell has no place for an error.
    """
    import psycopg  # noqa: PLC0415  the program itself loads it only when a command needs it

    from phantoms_dagster import settings as settings_module  # noqa: PLC0415

    try:
        url = settings_module.load().database_url
        if url is None:
            return []
        address = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url.get_secret_value())
        options = f"-c statement_timeout={_SECONDS * 1_000}"
        with psycopg.connect(address, connect_timeout=_SECONDS, options=options) as connection:
            keys = [row[0] for row in connection.execute(_KEYS, {"part": incomplete, "most": MOST})]
    except Exception:  # noqa: BLE001  whatever it is, the person who pressed Tab types on
        return []
    beginning = [key for key in keys if key.startswith(incomplete)]
    return beginning or keys
