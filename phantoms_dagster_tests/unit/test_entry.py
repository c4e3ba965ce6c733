"""How the command `phantoms` begins."""

import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points

import pytest

LOADED = "phantoms_dagster.cli.main"


class Interrupts:
    """An import during which the user presses Ctrl-C."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Of no module."""
        if name == LOADED:
            raise KeyboardInterrupt
        return None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("status", 130),
        ("demo", 130),
        ("logs key", 130),
        ("up", 0),
        ("watch --json", 0),
        ("logs key --follow", 0),
        ("logs -f key", 0),
    ],
)
def test_ctrl_c_while_the_command_is_still_imported_ends_it_without_a_traceback_and_as_it_ends_later(
    arguments: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["phantoms", *arguments.split()])
    [command] = entry_points(group="console_scripts", name="phantoms")
    main = command.load()
    monkeypatch.delitem(sys.modules, LOADED, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupts(), *sys.meta_path])
    with pytest.raises((SystemExit, KeyboardInterrupt)) as stop:
        main()
    assert isinstance(stop.value, SystemExit)
    assert (stop.value.code or 0) == code
