"""Shell completion of video keys. It queries the database with the bare driver, so that Tab answers quickly."""

from __future__ import annotations

import re

MOST = 50
_SECONDS = 2
_KEYS = """
    SELECT key FROM phantoms.videos WHERE strpos(key, %(part)s) > 0
    ORDER BY NOT starts_with(key, %(part)s), id DESC LIMIT %(most)s
"""


def complete_video(incomplete: str) -> list[str]:
    """Return the newest keys that start with `incomplete`; when there are none, those that contain it.

    Returns an empty list when the database is missing or does not answer: a shell cannot show an error here.
    """
    import psycopg  # noqa: PLC0415  other commands load it only when they need it

    from phantoms_dagster import settings as settings_module  # noqa: PLC0415

    try:
        url = settings_module.load().database.url
        if url is None:
            return []
        address = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url.get_secret_value())
        options = f"-c statement_timeout={_SECONDS * 1_000}"
        with psycopg.connect(address, connect_timeout=_SECONDS, options=options) as connection:
            keys = [row[0] for row in connection.execute(_KEYS, {"part": incomplete, "most": MOST})]
    except Exception:  # noqa: BLE001  whatever fails, the user can keep typing
        return []
    beginning = [key for key in keys if key.startswith(incomplete)]
    return beginning or keys
