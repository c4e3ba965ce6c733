"""What an account's state means for a person, and the command that helps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from phantoms_dagster.domain.accounts import DISCONNECTED, MISMATCH, NEEDS_PERSON, Account, standing
from phantoms_dagster.domain.grants import STORED
from phantoms_dagster.domain.models import Platform

NOW = datetime(2026, 11, 27, tzinfo=UTC)
CONNECT, CHECK = "phantoms accounts connect youtube --name ocean", "phantoms accounts check youtube:ocean"
ACCOUNT = Account(Platform("youtube"), "ocean", token_source=STORED, connected_at=NOW, reason="said")


@pytest.mark.parametrize(
    ("state", "dead", "source", "command"),
    [
        (DISCONNECTED, False, STORED, CHECK),
        (DISCONNECTED, True, STORED, CONNECT),
        (DISCONNECTED, False, "env:OCEAN", CONNECT),
        (MISMATCH, False, STORED, CONNECT),
    ],
)
def test_connecting_again_is_proposed_only_if_the_platform_has_ended_the_connection(
    state: str, dead: bool, source: str, command: str
) -> None:
    """After the secret of the app was replaced, every account asked to be connected again, which does not help."""
    found = standing(replace(ACCOUNT, state=state, dead=dead, token_source=source), NOW)
    assert (found.state, found.command) == (NEEDS_PERSON, command)
