"""What channels.yaml says, as it stands in its file. What it means is `domain.channels`' business."""

from __future__ import annotations

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.settings import Settings


class ChannelsMissing(InvalidInput):
    """PHANTOMS_CHANNELS names a file that is not there. No other file is taken in its place."""

    FIX = "put it there, correct the variable, or unset it: `phantoms up` then writes a channels.yaml into the data directory"


def channels_text(settings: Settings) -> str | None:
    """The text of channels.yaml; None when none is named and the data directory has none. Raises InvalidInput."""
    path = settings.path("channels")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if settings.channels is None:
            return None
        raise ChannelsMissing(f"PHANTOMS_CHANNELS names {path}, and there is no such file: {ChannelsMissing.FIX}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
