"""Ports of `phantoms up` that another program takes between the check and the start."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from phantoms_dagster.cli import stack as stack_module
from phantoms_dagster.cli.stack import Stack
from phantoms_dagster.embedded.servers import free_port, is_free
from phantoms_dagster.embedded.supervisor import ProcessFailed
from phantoms_dagster.settings import Settings


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    return Settings(paths={"home": tmp_path}, database={"url": database_url}, redis={"url": redis_url}, sandbox={"mode": "off"})


def test_a_metrics_port_that_is_taken_in_the_last_moment_is_tried_again_with_another(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`phantoms up` ended, because a scraper of another project was quicker."""
    stack = Stack(settings, say=lambda _: None, warn=lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        found = iter([taken])  # it was free a moment ago
        monkeypatch.setattr(stack_module, "free_port", lambda wanted, host: next(found, 0) or free_port(wanted, host))
        try:
            url = stack._start_metrics(settings, stack._environment(settings))
            assert httpx.URL(url).port != taken
            assert "phantoms_up" in httpx.get(url, trust_env=False).text
            assert list(stack.pids()) == ["metrics"]
        finally:
            stack.__exit__(None, None, None)
    assert stack.pids() == {}


def test_metrics_that_fail_for_another_reason_are_not_tried_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def noted(wanted: int, host: str) -> int:
        asked.append(wanted)
        return free_port(wanted, host)

    monkeypatch.setattr(stack_module, "free_port", noted)
    stack = Stack(settings, say=lambda _: None, warn=lambda _: None)
    environment = {**stack._environment(settings), "PHANTOMS_ATTEMPTS": "many"}
    try:
        with pytest.raises(ProcessFailed, match="PHANTOMS_ATTEMPTS"):
            stack._start_metrics(settings, environment)
    finally:
        stack.__exit__(None, None, None)
    assert len(asked) == 1


def test_a_port_is_free_only_where_the_server_will_listen() -> None:
    with socket.create_server(("127.0.0.2", 0)) as other:
        taken = other.getsockname()[1]
        assert not is_free(taken, "127.0.0.2")
        assert not is_free(taken, "0.0.0.0")
        assert free_port(taken, "127.0.0.2") != taken
