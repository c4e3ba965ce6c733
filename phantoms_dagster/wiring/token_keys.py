"""The keys that encrypt stored tokens: from PHANTOMS_TOKEN_KEYS, else from a file in the data directory.

This module imports no cryptography until a key is needed, because most commands read no token.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.secret_file import change_secret, kept_secret

if TYPE_CHECKING:
    from phantoms_dagster.store.vault import Vault

FILE = "token.keys"
VARIABLE = "PHANTOMS_TOKEN_KEYS"


def vault(settings: Settings, *, make: bool = False) -> Vault:
    """The vault with these keys. `make`: make the file with a first key if it is not there.

    Only the command that stores the first token of all may do that, and a stack with a PostgreSQL of its own. Another machine's key
    would decrypt nothing there.
    """
    from phantoms_dagster.store.vault import Vault, new_key  # noqa: PLC0415

    path = key_file(settings)
    if settings.tokens.keys is None and make:
        kept_secret(path, new_key, variable=VARIABLE)
    return Vault(lambda: _keys(settings), VARIABLE if settings.tokens.keys else str(path))


def first_key(settings: Settings) -> None:
    """Make the first key unless there is one. Only for a PostgreSQL that this machine alone uses. Raises InvalidInput."""
    if settings.tokens.keys is None and not key_file(settings).exists():
        vault(settings, make=True)


def key_file(settings: Settings) -> Path:
    """The file with the keys if PHANTOMS_TOKEN_KEYS is not set."""
    return settings.paths.home.expanduser().absolute() / FILE


def add_key(settings: Settings) -> Path | None:
    """Add a key before those in the file. Returns the file; None if the keys are in PHANTOMS_TOKEN_KEYS. Raises OSError."""
    from phantoms_dagster.store.vault import new_key  # noqa: PLC0415

    if settings.tokens.keys is not None:
        return None
    path = key_file(settings)
    _keys(settings)  # says what to do if there are none
    # The old keys stay: processes that still use one may encrypt another token with it, and so may a backup have been.
    change_secret(path, lambda: ",".join([new_key(), *_keys(settings)]))
    return path


def _keys(settings: Settings) -> list[str]:
    from phantoms_dagster.store.vault import WrongKey  # noqa: PLC0415

    if settings.tokens.keys is not None:
        text = settings.tokens.keys.get_secret_value()
    else:
        path = key_file(settings)
        try:
            text = path.read_text(encoding="ascii")
        except FileNotFoundError:
            message = (
                f"{path} is not on this machine: copy it from the machine that connected the accounts, or set {VARIABLE} on all"
            )
            raise WrongKey(message) from None
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path} cannot be read ({getattr(error, 'strerror', None) or 'it is not text'})") from None
    keys = [key.strip() for key in text.replace("\n", ",").split(",") if key.strip()]
    if not keys:
        raise InvalidInput(f"{VARIABLE if settings.tokens.keys else key_file(settings)} has no key")
    return keys
