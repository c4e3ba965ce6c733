"""What the commands say to Ctrl-C and to an argument that is no number."""

from __future__ import annotations

import sys

import pytest
import typer
from typer.testing import CliRunner

from phantoms_dagster.cli.console import if_interrupted, plain_errors
from phantoms_dagster.cli.main import app


@pytest.mark.parametrize(
    ("command", "said"), [("preflight", "interrupted: nothing was changed"), ("posts", "interrupted"), ("watch", "")]
)
def test_ctrl_c_says_what_it_ended(
    command: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["phantoms", command])
    with pytest.raises(typer.Exit) as stop, plain_errors():
        raise KeyboardInterrupt
    assert stop.value.exit_code == (130 if said else 0)
    assert capsys.readouterr().err.strip() == said


def test_a_command_says_what_ctrl_c_left_behind(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), plain_errors(), if_interrupted(lambda: "nothing was stored"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err.strip() == "interrupted: nothing was stored"


@pytest.mark.parametrize("command", [("calendar", "feed", "revoke"), ("guest-links", "revoke")])
def test_an_id_that_is_no_number_is_said_in_words(command: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [*command, "abc"])
    assert answer.exit_code == 2
    assert "'abc' is not a number" in answer.output
    assert "parse" not in answer.output
