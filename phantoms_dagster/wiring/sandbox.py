"""Assembles the sandbox with all stand-ins. Its render API uses the local renderer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from aiohttp import web

from phantoms_dagster.providers.shotstack.edit import job_from_edit
from phantoms_dagster.registry.integrations import INTEGRATIONS
from phantoms_dagster.sandbox import grants, watch_page
from phantoms_dagster.sandbox.core import Sandbox, application
from phantoms_dagster.sandbox.shotstack import routes as shotstack_sandbox
from phantoms_dagster.sandbox.shotstack.studio import Progress, Render
from phantoms_dagster.sandbox.state_store import StateStore


def _renderer() -> Callable[..., Awaitable[Any]]:
    """The local renderer, imported with the first render: importing it and its fonts takes a third of the sandbox's start."""
    from phantoms_dagster.media.local_renderer import render  # noqa: PLC0415

    return render


def sandbox_application(
    *, seed: int, base_url: str, work_dir: Path, real_renders: bool = True, lasting: bool = False, media: Path | None = None
) -> web.Application:
    """The sandbox's HTTP application. Its render API uses the local renderer unless `real_renders` is off.

    `lasting`: the state is kept in `work_dir`, and a sandbox started there later continues from it; raises StateUnusable. `media`:
    the media folder whose files the watch pages play.
    """
    store = StateStore(work_dir) if lasting else None
    sandbox = Sandbox(seed=seed, base_url=base_url, store=store)
    watch_page.play_from(sandbox, media)

    async def render_edit(edit: dict[str, Any], audio: Path | None, destination: Path, progress: Progress) -> None:
        if audio is None:
            raise ValueError("the edit has no voiceover")
        render = await asyncio.to_thread(_renderer)
        await render(job_from_edit(edit, audio), destination, fonts=work_dir / "fonts", progress=progress)

    callback: Render | None = render_edit if real_renders else None
    app = application(
        sandbox,
        [
            *(
                shotstack_sandbox.routes(sandbox, render=callback, work_dir=work_dir / "renders")
                if name == shotstack_sandbox.__name__  # the one stand-in that makes videos
                else import_module(name).routes(sandbox)
                for name in dict.fromkeys(spec.sandbox for spec in INTEGRATIONS.values() if spec.sandbox)
            ),
            watch_page.routes(sandbox),
            grants.routes(sandbox),
        ],
    )
    shotstack_sandbox.setup(app)
    if store is not None:

        async def close(_: web.Application) -> None:
            store.close()

        app.on_cleanup.append(close)
    return app
