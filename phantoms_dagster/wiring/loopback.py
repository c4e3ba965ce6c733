"""A web server on this machine for one redirect: the platform sends the person's browser back to it with the answer.

It logs nothing, because the URL holds the code.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from phantoms_dagster.domain.errors import InvalidInput

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
PATH = "/callback"
# The longest wait until a browser has received its page.
SEND_SECONDS = 5.0
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>body{{font:1.1rem/1.6 system-ui,sans-serif;max-width:36rem;
margin:15vh auto;padding:0 1rem;color-scheme:light dark}}</style><h1>{title}</h1><p>{text}</p></html>"""


@dataclass(frozen=True)
class Page:
    """The page that the person sees. `done`: no further answer is expected."""

    title: str
    text: str
    done: bool
    status: int = 200


@dataclass
class _Visit:
    answer: Mapping[str, str] = field(repr=False)
    page: queue.SimpleQueue[Page] = field(default_factory=queue.SimpleQueue)
    sent: threading.Event = field(default_factory=threading.Event)

    def show(self, page: Page) -> None:
        """Send the page to the browser. The program may end right after this, and the thread that sends it with it."""
        self.page.put(page)
        self.sent.wait(SEND_SECONDS)


class LoopbackServer:
    """Listens as soon as it is created. Raises InvalidInput when it cannot."""

    def __init__(self, port: int = 0, path: str = PATH) -> None:
        self._visits: queue.SimpleQueue[_Visit] = queue.SimpleQueue()
        visits = self._visits

        class Handler(BaseHTTPRequestHandler):
            timeout = 30

            def do_GET(self) -> None:
                asked = urlsplit(self.path)
                if asked.path != path:
                    return self.shown(
                        Page("Nothing here", "This address only receives a platform's answer.", done=False, status=404)
                    )
                visit = _Visit(dict(parse_qsl(asked.query)))
                visits.put(visit)
                try:
                    return self.shown(visit.page.get())
                finally:
                    visit.sent.set()

            def shown(self, page: Page) -> None:
                body = _PAGE.format(title=escape(page.title), text=escape(page.text)).encode()
                self.send_response(page.status)
                for name, value in (
                    ("Content-Type", "text/html; charset=utf-8"),
                    ("Content-Length", str(len(body))),
                    ("Cache-Control", "no-store"),
                    ("Referrer-Policy", "no-referrer"),
                    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
                ):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
                """Log nothing."""

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InvalidInput(f"port {port} of this machine cannot be used ({reason}); choose another with --port") from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self._thread.start()

    def wait(self, judge: Callable[[Mapping[str, str]], Page], seconds: float) -> None:
        """Let `judge` make the page for each answer until one is done. Raises InvalidInput when none comes in time."""
        until = time.monotonic() + seconds
        while True:
            try:
                visit = self._visits.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                message = f"no answer came within {seconds / 60:.0f} minutes; try again"
                raise InvalidInput(f"{message}, with --paste if the browser is on another machine") from None
            try:
                page = judge(visit.answer)
            except BaseException as error:
                # The person is looking at the browser, not at the terminal.
                visit.show(Page("Not connected", f"{error}", done=True, status=400))
                raise
            visit.show(page)
            if page.done:
                return

    def close(self) -> None:
        """Stop listening, after the last page was sent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
