"""The file with the keys for stored tokens, when several commands change it at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from phantoms_dagster.settings import Settings
from phantoms_dagster.store.vault import WrongKey
from phantoms_dagster.wiring import token_keys
from phantoms_dagster.wiring.secret_file import change_secret
from phantoms_dagster.wiring.token_keys import add_key, vault


def test_two_changes_at_once_lose_nothing(tmp_path: Path) -> None:
    """A key that another command had already used could be lost, and the tokens with it."""
    path = tmp_path / "keys"
    path.write_text("0")
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> str:
        old = path.read_text()
        begun.set()
        assert go_on.wait(30)
        return f"1,{old}"

    first = threading.Thread(target=change_secret, args=(path, slowly))
    first.start()
    assert begun.wait(30)
    second = threading.Thread(target=change_secret, args=(path, lambda: f"2,{path.read_text()}"))
    second.start()
    second.join(0.2)  # it waits for the first
    go_on.set()
    first.join(30)
    second.join(30)
    assert path.read_text() == "2,1,0"
    assert path.stat().st_mode & 0o777 == 0o600


def test_each_new_key_stands_before_the_old_ones_and_all_still_decrypt(tmp_path: Path) -> None:
    settings = Settings(paths={"home": tmp_path})
    sealed = [vault(settings, make=True).encrypt("first")]
    for text in ("second", "third"):
        assert add_key(settings) == tmp_path / token_keys.FILE
        sealed.append(vault(settings).encrypt(text))
    assert [vault(settings).decrypt(one) for one in sealed] == ["first", "second", "third"]
    keys = (tmp_path / token_keys.FILE).read_text().split(",")
    assert len(set(keys)) == 3


def test_without_a_key_there_is_none_to_rotate(tmp_path: Path) -> None:
    with pytest.raises(WrongKey, match="is not on this machine"):
        add_key(Settings(paths={"home": tmp_path / "new"}))


def test_no_other_user_can_open_the_lock_of_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    (tmp_path / "keys.lock").write_text("")
    (tmp_path / "keys.lock").chmod(0o644)  # as an earlier version left it
    change_secret(path, lambda: "1")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("keys", "keys.lock")] == [0o600, 0o600]
