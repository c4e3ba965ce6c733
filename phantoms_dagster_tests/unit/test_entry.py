"""How the command `phantoms` begins."""

import sys
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points

import pytest

LOADED = "phantoms_dagster.cli.main"


class Interrupts:
    """An import during which somebody presses Ctrl-C."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Of no module."""
        if name == LOADED:
            raise KeyboardInterrupt
        return None


def test_ctrl_c_while_the_command_is_still_imported_ends_it_with_130_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    [command] = entry_points(group="console_scripts", name="phantoms")
    main = command.load()
    monkeypatch.delitem(sys.modules, LOADED, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupts(), *sys.meta_path])
    with pytest.raises((SystemExit, KeyboardInterrupt)) as stop:
        main()
    assert isinstance(stop.value, SystemExit)
    assert stop.value.code == 130
