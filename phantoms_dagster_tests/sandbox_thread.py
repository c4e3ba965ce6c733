"""The whole sandbox on a thread of its own, for tests whose code under test owns the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Middleware

from phantoms_dagster.sandbox.core import SANDBOX_KEY, Sandbox
from phantoms_dagster.wiring.sandbox import sandbox_application


@dataclass(frozen=True)
class Running:
    """A sandbox that answers at `url`."""

    sandbox: Sandbox
    url: str


@contextmanager
def sandbox_thread(folder: Path, *middlewares: Middleware, seed: int = 1) -> Iterator[Running]:
    """A sandbox until the end. `middlewares`: the outermost ones, which see what really goes over the wire."""
    app = sandbox_application(seed=seed, base_url="", work_dir=folder, real_renders=False)
    app.middlewares[:0] = middlewares
    server = TestServer(app)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="sandbox")
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start_server(), loop).result(30)
        url = str(server.make_url("")).rstrip("/")
        app[SANDBOX_KEY].base_url = url
        yield Running(app[SANDBOX_KEY], url)
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
