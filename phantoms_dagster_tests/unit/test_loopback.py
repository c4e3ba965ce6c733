"""The web server that receives a platform's answer when an account is connected."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

import pytest

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.wiring import loopback
from phantoms_dagster.wiring.loopback import LoopbackServer, Page


class SlowPage(str):
    """A page that takes a while to fill in."""

    def format(self, *args: object, **kwargs: object) -> str:
        """Take a while."""
        time.sleep(0.3)
        return str.format(self, *args, **kwargs)


@pytest.mark.parametrize("refused", [False, True])
def test_the_browser_has_its_page_before_the_program_goes_on(refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ended first, and the browser showed that the server had closed the connection."""
    monkeypatch.setattr(loopback, "_PAGE", SlowPage(loopback._PAGE))

    def judge(answer: Mapping[str, str]) -> Page:
        if refused:
            raise InvalidInput("no access was given")
        return Page("Connected", f"The code is {answer['code']}.", done=True)

    server = LoopbackServer()
    with socket.create_connection(("127.0.0.1", server.port)) as browser:
        browser.sendall(b"GET /callback?code=abc HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if refused:
            with pytest.raises(InvalidInput, match="no access"):
                server.wait(judge, 30)
        else:
            server.wait(judge, 30)
        browser.setblocking(False)
        received = browser.recv(65_536).decode()
    server.close()
    assert received.startswith("HTTP/1.0 400" if refused else "HTTP/1.0 200")
