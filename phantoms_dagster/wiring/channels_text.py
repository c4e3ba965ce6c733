"""Reads the text of channels.yaml. `domain.channels` parses it."""

from __future__ import annotations

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.settings import Settings


class ChannelsMissing(InvalidInput):
    """PHANTOMS_CHANNELS names a file that does not exist. No other file is used instead."""

    FIX = "create it, correct the variable, or unset it: `phantoms up` then writes a channels.yaml into the data directory"


def channels_text(settings: Settings) -> str | None:
    """The text of channels.yaml. None if the variable is unset and the data directory has no such file. Raises InvalidInput."""
    path = settings.channels_path
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if settings.paths.channels is None:
            return None
        raise ChannelsMissing(f"PHANTOMS_CHANNELS names {path}, which does not exist: {ChannelsMissing.FIX}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
