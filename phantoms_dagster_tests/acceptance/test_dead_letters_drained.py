"""The morning after: a provider refused everything all night, the cause is fixed, and one command drains the queue."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phantoms_dagster.domain.models import Brief
from phantoms_dagster_tests.acceptance.conftest import SandboxProcess, StackProcess, wait_for

pytestmark = pytest.mark.timeout(1200)


def _letters(stack: StackProcess, *arguments: str) -> list[dict[str, Any]]:
    listed = stack.phantoms("dead-letters", "list", "--json", *arguments)
    assert listed.returncode == 0, listed.stderr
    letters: list[dict[str, Any]] = json.loads(listed.stdout)["letters"]
    return letters


def test_replaying_everything_after_a_fixed_fault_drains_the_dead_letters_to_zero(
    stack: StackProcess, sandbox: SandboxProcess
) -> None:
    """Discarding asks for a reason and keeps the record."""
    refused = json.dumps({"error": {"message": "Incorrect API key", "type": "invalid_request_error", "code": "invalid_api_key"}})
    sandbox.fault(route="openai.chat", kind="status", status=401, body=refused)
    stack.start()
    workshop = stack.workshop
    try:
        channel = next(iter(workshop.channels().values()))
        briefs = [Brief(title=f"Island {n}", channel=channel.name, platforms=tuple(channel.accounts)) for n in range(1, 6)]
        keys = [added.key for added in workshop.catalogue().add(briefs, source="test")]
        letters = wait_for(lambda: (found := _letters(stack)) and len(found) == len(keys) and found)
        assert {(letter["stage"], letter["provider"], letter["error_class"]) for letter in letters} == {
            ("script", "openai", "permanent")
        }

        unwanted = keys[0]
        refused_discard = stack.phantoms("dead-letters", "discard", unwanted)
        assert refused_discard.returncode == 2
        assert "reason" in refused_discard.stderr
        assert len(_letters(stack)) == len(keys)
        assert stack.phantoms("dead-letters", "discard", unwanted, "--reason", "the topic is stale").returncode == 0
        [kept] = _letters(stack, "--state", "discarded")
        assert kept["closed_reason"] == "the topic is stale"

        sandbox.heal()
        assert stack.phantoms("dead-letters", "replay", "--all").returncode == 0
        assert _letters(stack) == []
        wait_for(lambda: all(r.states["script"] == "done" for r in workshop.catalogue().videos(keys=keys[1:])))
        assert _letters(stack) == []
        assert workshop.catalogue().stages(unwanted)["script"].state == "discarded"
    finally:
        workshop.close()
    assert stack.stop() == 0
