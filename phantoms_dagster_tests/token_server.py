"""A small token server for tests: rotates refresh tokens, dies on demand, and gives any answer that a test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class TokenServer:
    """The server. `calls`: the forms it received. `alive`: the refresh tokens that it accepts.

    `answers`: what it answers next instead of tokens. `hold`: it answers only after this is set.
    """

    url: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)
    alive: set[str] = field(default_factory=set)
    rotates: bool = True
    life: int = 86_400
    answers: list[Callable[[], web.Response]] = field(default_factory=list)
    hold: asyncio.Event | None = None
    came: asyncio.Event = field(default_factory=asyncio.Event)
    extra: dict[str, Any] = field(default_factory=dict)

    async def token(self, request: web.Request) -> web.Response:
        form = {
            **{key: str(value) for key, value in request.query.items()},
            **{k: str(v) for k, v in (await request.post()).items()},
        }
        self.calls.append(form)
        number = len(self.calls)
        given = form.get("refresh_token", form.get("access_token", ""))
        if form.get("grant_type") == "authorization_code":
            given = "rft.first"
            self.alive.add(given)
        elif given not in self.alive:
            return web.json_response({"error": "invalid_grant", "error_description": f"{given} was revoked"}, status=400)
        after = f"rft.next-{number}" if self.rotates else given
        if self.rotates:
            self.alive.discard(given)
            self.alive.add(after)
        self.came.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.answers:
            return self.answers.pop(0)()
        answer = {"access_token": f"act.token-{number}", "expires_in": self.life, "refresh_token": after, "token_type": "Bearer"}
        return web.json_response(answer | self.extra)


@asynccontextmanager
async def serving(**given: Any) -> AsyncIterator[TokenServer]:
    """The server on a free port of this machine."""
    server = TokenServer(**given)
    app = web.Application()
    for path in ("/token", "/v2/oauth/token/", "/oauth/access_token"):
        app.router.add_post(path, server.token)
    for path in ("/access_token", "/refresh_access_token"):
        app.router.add_get(path, server.token)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
