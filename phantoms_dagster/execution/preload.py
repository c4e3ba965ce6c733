"""Imports everything that runs need before anything forks, so that it is done once and its memory is shared.

It reads settings but opens no connections and starts no threads, so forking afterwards is safe.
"""

from __future__ import annotations

import importlib

from phantoms_dagster import settings as settings_module
from phantoms_dagster.domain import markup
from phantoms_dagster.domain.languages import language_tag
from phantoms_dagster.resilience import wire

MODULE = "phantoms_dagster.definitions"
# Modules that a run imports late. In the parent this costs once; after the fork it would cost 0.1 CPU-seconds per run.
# pandas is left out: it takes 20 MB all the time, and only the performance tables need it, once an hour.
IMPORTED_BY_RUNS = (
    "certifi",
    "encodings.ascii",
    "encodings.idna",
    "av.subtitles.stream",
    "imageio_ffmpeg.binaries",
    "openai.lib._chat_completion_resources",
    "importlib.readers",
    "openai.resources.chat.chat",
    "openai.resources.chat.completions.completions",
    "phantoms_dagster.production.inbox",
    "phantoms_dagster.store.brief_edits",
    "phantoms_dagster.wiring.models",
    "phantoms_dagster.wiring.pipeline",
    "psycopg",
    "psycopg2.extras",
    "psycopg_binary._psycopg",
    "rq.registry",
    "rq.worker",
    "sqlalchemy.ext.asyncio",
    "upath",
    "upath.implementations.local",
)


def load(module: str) -> None:
    """Import everything that runs need and load the definitions. Raises whatever the definitions raise."""
    import dagster as dg  # noqa: PLC0415 - the reload check and --help do without

    from phantoms_dagster.private import dagster as private  # noqa: PLC0415

    private.preload(private.IMPORTED_BY_RUNS)
    # Decide here once, so that runs do not have to.
    usable = [path for path in ("parts", "storage", "events", "runs") if private.usable(path)]
    if "storage" in usable:
        importlib.import_module("phantoms_dagster.execution.pooled_storage")
    for name in IMPORTED_BY_RUNS:
        importlib.import_module(name)
    wire.tls()
    # Both build tables on their first use, which would cost 0.1 s per run.
    language_tag("en-US")
    markup.plain("*")
    if settings_module.load().media.url:
        importlib.import_module("phantoms_dagster.media.object_store.client")
    for value in vars(importlib.import_module(module)).values():
        if isinstance(value, dg.Definitions):
            value.get_repository_def().get_all_jobs()
