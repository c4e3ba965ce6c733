"""Ports that `phantoms up` keeps: old links work after a restart."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from phantoms_dagster.cli.ports import FILE, Ports
from phantoms_dagster.embedded.servers import free_port


def ports(home: Path) -> tuple[Ports, list[str]]:
    told: list[str] = []
    return Ports(home, say=told.append, warn=told.append), told


def test_a_service_has_the_same_port_after_a_restart(tmp_path: Path) -> None:
    first, told = ports(tmp_path)
    before = [first.take("sandbox"), first.take("webserver", wish=0, usual=3_000)]
    again, said = ports(tmp_path)
    assert [again.take("sandbox"), again.take("webserver", wish=0, usual=3_000)] == before
    assert told == said == []


def test_a_taken_port_is_said_and_had_again_when_it_is_free(tmp_path: Path) -> None:
    own = ports(tmp_path)[0].take("sandbox")
    with socket.create_server(("127.0.0.1", own)):
        other, told = ports(tmp_path)
        meanwhile = other.take("sandbox")
        assert meanwhile != own
        assert told == [f"sandbox: port {own} is in use, so it is on {meanwhile}; links to {own} will not work"]
        assert ports(tmp_path)[0].take("sandbox") == meanwhile  # a program that stays does not move it at each start
    third, said = ports(tmp_path)
    assert (third.take("sandbox"), said) == (own, [])


def test_a_port_that_is_asked_for_comes_before_the_one_of_before(tmp_path: Path) -> None:
    wish = free_port(0)
    before = ports(tmp_path)[0].take("webserver", usual=free_port(0))
    assert ports(tmp_path)[0].take("webserver", wish=wish) == wish
    assert ports(tmp_path)[0].take("webserver", usual=before) == wish


def test_the_usual_port_of_another_program_is_said_at_the_first_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        usual = other.getsockname()[1]
        said: list[str] = []
        port = Ports(tmp_path, say=said.append, warn=pytest.fail).take("metrics", usual=usual)
        assert said == [f"metrics: port {usual} is in use, so it is on {port}"]


def test_a_service_that_never_had_the_usual_port_keeps_its_own_when_that_one_is_free(tmp_path: Path) -> None:
    """A demo had it at the first start. After a restart every link of the desk that was given out was dead."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        usual = other.getsockname()[1]
        own = ports(tmp_path)[0].take("desk", usual=usual)
    again, told = ports(tmp_path)
    assert (again.take("desk", usual=usual), told) == (own, [])


@pytest.mark.parametrize("content", ["", "[1]", '{"sandbox": "x"}', '{"sandbox": 5}', '{"sandbox": [99999999]}'])
def test_a_damaged_file_costs_only_the_addresses(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    port = ports(tmp_path)[0].take("sandbox")
    assert ports(tmp_path)[0].take("sandbox") == port


def test_of_two_stacks_that_start_together_the_second_has_another_port(tmp_path: Path) -> None:
    """Nothing listens yet: the first has only chosen its port."""
    usual = free_port(0)
    chooses = f"""
import sys
from pathlib import Path
from phantoms_dagster.cli.ports import Ports
print(Ports(Path(sys.argv[1]), say=str, warn=str).take("desk", usual={usual}), flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", chooses, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert int(first.stdout.readline()) == usual
        home = tmp_path / "second"
        home.mkdir()
        second, told = ports(home)
        port = second.take("desk", usual=usual)
        assert told == [f"desk: port {usual} is in use, so it is on {port}"]
        first.stdin.close()
    assert ports(home)[0].take("desk", usual=usual) == port


def test_two_services_of_one_stack_that_wish_for_one_port_get_two(tmp_path: Path) -> None:
    wish = free_port(0)
    own, told = ports(tmp_path)
    assert own.take("webserver", wish=wish) == wish
    other = own.take("desk", wish=wish)
    assert told == [f"desk: port {wish} is in use, so it is on {other}"]
    assert own.take("webserver", wish=wish) == wish
