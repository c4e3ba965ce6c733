"""The search language for videos: words, and qualifiers such as `stage:render state:deferred since:6h`. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.stages import STAGES, StageState

QUALIFIERS = ("stage", "state", "channel", "since", "platform", "priority")
# These two are states of a video. All others are states of its stages.
OF_VIDEOS = ("held", "retired")
STATES = (*(str(state) for state in StageState), *OF_VIDEOS)
# Other names that people use for stages.
_ALIASES = {"render": "rendered_video", "voice": "voiceover", "review": "approval", "publish": "post"}
MOST_CHARACTERS = 300
MOST_WORDS = 8
_PART = re.compile(r'(?:([A-Za-z]+):)?(?:"([^"]*)"|(\S+))')
_AGO = re.compile(r"(\d{1,6})(m|h|d|w)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Search:
    """A parsed search. Empty fields match everything. `words`: beginnings of words in the title or the key.

    `stages`: names of stages, at least one of which must be in `state`. `since`: when the stage last changed if the search names a
    stage or a state of one, else when the video was added.
    """

    text: str = ""
    words: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    state: str = ""
    channel: str = ""
    platform: str = ""
    priority: int | None = None
    since: datetime | None = None

    @property
    def of_stages(self) -> bool:
        """Whether it filters by stages, not only by videos."""
        return bool(self.stages) or (bool(self.state) and self.state not in OF_VIDEOS)


def parse(text: str, *, now: datetime, channels: Collection[str] | None = None) -> Search:
    """Parse what a person typed. `channels`: the existing channels, if they are known.

    Raises InvalidInput, which says what a qualifier accepts, or suggests the one that was probably meant.
    """
    text = " ".join(text.split())
    if len(text) > MOST_CHARACTERS:
        raise InvalidInput(f"a search has at most {MOST_CHARACTERS} characters; this one has {len(text)}")
    if text.count('"') % 2:
        raise InvalidInput("a quotation mark is not closed")
    found: dict[str, str] = {}
    words: list[str] = []
    for name, value in _parts(text):
        if not name:
            words += re.findall(r"[^\W_]+", value.casefold())
            continue
        if name not in QUALIFIERS:
            raise InvalidInput(f"there is no qualifier {name!r}{_meant(name, QUALIFIERS)}; there are {', '.join(QUALIFIERS)}")
        if not value:
            raise InvalidInput(f"{name}: needs a value, such as {_EXAMPLES[name]}")
        if name in found:
            raise InvalidInput(f"{name}: appears twice; a search takes one {name}")
        found[name] = value
    if len(words) > MOST_WORDS:
        raise InvalidInput(f"a search has at most {MOST_WORDS} words; this one has {len(words)}")
    return Search(
        text=text,
        words=tuple(words),
        stages=_stages(found["stage"]) if "stage" in found else (),
        state=_one_of("state", found["state"].casefold(), STATES) if "state" in found else "",
        channel=_channel(found.get("channel", ""), channels),
        platform=_one_of("platform", found["platform"].casefold(), [str(p) for p in Platform]) if "platform" in found else "",
        priority=_priority(found["priority"]) if "priority" in found else None,
        since=_since(found["since"], now) if "since" in found else None,
    )


def suggestions(channels: Collection[str]) -> list[str]:
    """The completions that a search field offers."""
    kinds = dict.fromkeys(stage.kind for stage in STAGES.values())
    return [
        *(f"stage:{kind}" for kind in kinds),
        *(f"state:{state}" for state in STATES),
        *(f"channel:{channel}" for channel in sorted(channels)),
        *(f"platform:{platform}" for platform in Platform),
        *(f"since:{ago}" for ago in ("1h", "6h", "24h", "7d")),
        "priority:1",
    ]


_EXAMPLES = {
    "stage": "stage:rendered_video",
    "state": "state:failed",
    "channel": "channel:curious",
    "since": "since:6h",
    "platform": "platform:tiktok",
    "priority": "priority:1",
}


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Yield (qualifier, value) pairs; the qualifier of plain words is empty. A bare `state:` is a qualifier without a value."""
    for part in _PART.finditer(text):
        name, quoted, plain = part[1], part[2], part[3]
        value = quoted if quoted is not None else plain
        if name is None and (bare := re.fullmatch(r"([A-Za-z]+):", value)):
            yield bare[1].casefold(), ""
        else:
            yield (name or "").casefold(), value.strip()


def _stages(value: str) -> tuple[str, ...]:
    wanted = _ALIASES.get(value.casefold(), value.casefold())
    found = tuple(s.name for s in STAGES.values() if wanted in (s.name, s.kind))
    if not found:
        known = list(dict.fromkeys([*STAGES, *(s.kind for s in STAGES.values())]))
        raise InvalidInput(f"there is no stage {value!r}{_meant(wanted, known)}; there are {', '.join(known)}")
    return found


def _one_of(name: str, value: str, known: Collection[str]) -> str:
    if value not in known:
        raise InvalidInput(f"there is no {name} {value!r}{_meant(value, known)}; there are {', '.join(known)}")
    return value


def _channel(value: str, channels: Collection[str] | None) -> str:
    return _one_of("channel", value, sorted(channels)) if value and channels is not None else value


def _priority(value: str) -> int:
    if not re.fullmatch(r"[0-9]", value):
        raise InvalidInput(f"priority:{value} is not a priority; give 0 (first) to 9")
    return int(value)


def _since(value: str, now: datetime) -> datetime:
    ago = _AGO.fullmatch(value.casefold())
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        given = datetime.fromisoformat(value)
        return given if given.tzinfo else given.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(f"since:{value} is not a time; give 30m, 6h, 2d, or a day such as 2026-12-24") from None


def _meant(value: str, known: Collection[str]) -> str:
    close = get_close_matches(value, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
