"""Checks every request and hardens every response: a known `Host`, a body of bounded size, and security headers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 20_000_000  # a file of briefs
# A body that stalls this long is abandoned, which frees its connection and thread.
STALLED_SECONDS = 30.0

POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "media-src 'self'",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class BodyTooLarge(Exception):
    """The body is longer than MOST_BYTES."""


class BodyStalled(Exception):
    """The client stopped sending before the end of the body."""


class RequestGuard:
    """ASGI middleware. Refuses requests for unknown hosts and oversized bodies, and adds the security headers to every response."""

    def __init__(self, app: ASGIApp, hosts: Callable[[], frozenset[str]]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        if _name(headers.get("host", "")) not in self._hosts():
            refusal = _refusal(
                scope,
                "This desk does not answer under that name. Open the address that `phantoms up` printed, or set PHANTOMS_DESK_URL "
                "to the address that people use.",
                400,
            )
            await refusal(scope, receive, answer)
            return
        size = headers.get("content-length", "0")
        if not size.isdigit() or int(size) > MOST_BYTES:
            await _refusal(scope, f"That is too large: at most {MOST_BYTES} bytes are accepted.", 413)(scope, receive, answer)
            return
        left, whole = MOST_BYTES, False

        async def bounded() -> Message:
            nonlocal left, whole
            try:
                # After the body the only message is the disconnect, which may come at any time.
                async with asyncio.timeout(None if whole else STALLED_SECONDS):
                    message = await receive()
            except TimeoutError:
                raise BodyStalled from None
            whole = not message.get("more_body", False)
            left -= len(message.get("body", b""))
            if left < 0:
                raise BodyTooLarge
            return message

        await self._app(scope, bounded, answer)


def _refusal(scope: Scope, said: str, status: int) -> Response:
    """Return the refusal as problem details for paths below /api/, else as a line of text."""
    if not scope["path"].startswith("/api/"):
        return PlainTextResponse(f"{said}\n", status)
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": said, "instance": scope["path"], "errors": []}
    return Response(json.dumps(body), status, media_type="application/problem+json")


def _name(host: str) -> str:
    """Return the host without its port; empty when it cannot be parsed."""
    try:
        return (urlsplit(f"//{host}").hostname or "").casefold()
    except ValueError:
        return ""
