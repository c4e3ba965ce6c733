"""Parses the text of channels.yaml. Errors name the line and the right form. `wiring` reads the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Any

import yaml
from pydantic import ValidationError

from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import WRITTEN_CHANNEL, Channel, Platform
from phantoms_dagster.domain.platform_fields import platforms_with_a_key
from phantoms_dagster.domain.posting_slots import DAYS, PostingSlot
from phantoms_dagster.domain.problems import Path, located_problems
from phantoms_dagster.domain.text import unfit

_FIRST, _SECOND = list(Platform)[:2]
# An example of each key, shown with every mistake in it. A channel has these keys and no others.
FORMS: Mapping[str, str] = {
    "title": "title: Curious Minute",
    "brand_voice": "brand_voice: Warm and precise.",
    "banned_words": "banned_words: [miracle, guaranteed]",
    "language": "language: en, or another code of BCP 47 such as de or pt-BR",
    "voice": "voice: default",
    "target_seconds": "target_seconds: 30, a whole number from 15 to 60",
    "accounts": f"accounts: {{{_FIRST}: my-channel, {_SECOND}: my-channel}}",
    "tokens": f'tokens: {{{_FIRST}: "env:MY_TOKEN"}}, or "file:/path"; never the token itself',
    "hashtags": 'hashtags: ["#fun", "#facts"], each in quotes',
    **{platform.spec.name: key.form for platform, key in platforms_with_a_key()},
    "timezone": "timezone: Europe/Berlin",
    "posting_hours": "posting_hours: {start: 9, end: 21}, local hours from 0 to 24; {start: 20, end: 2} goes over midnight",
    "slots": f'slots: [{{time: "18:30", days: [mon, wed], platforms: [{_FIRST}]}}]; without days it is every day',
    "min_distance_minutes": "min_distance_minutes: 30, a whole number from 0 to 1440",
    "missed": "missed: post, next or ask; what to do with a post whose slot has passed",
    "repeats": "repeats: {days: 30, percent: 85}, which posts of an account are too alike; {days: 0} compares nothing",
    "budget_usd": "budget_usd: 1.50",
    "palette": 'palette: {background: ["#0f1b4c", "#6a1b9a"], text: "#ffffff", accent: "#ffd23f"}',
    "made_for_kids": "made_for_kids: false",
    "reviewers": "reviewers: 2, for two different people who must both approve; 1 is the default",
    "own_briefs": "own_briefs: refuse, so that nobody approves a brief that they added; allow is the default",
}
_COMMENT = "a # begins a comment in YAML"
# A list or a value cut off by a comment: `hashtags: [#fun, #facts]`, `accent: #ffd23f`, `- #fun`.
_CUT_OFF = re.compile(r"""^[^"'#]*[\[:,\-]\s*\#""")
_MOST_USD = 1_000_000
_SMALLEST_USD = Decimal("0.000001")
# Keys whose text may have several lines.
_LONG_TEXTS = ("brand_voice",)

# An extra check of a channel. Returns the key and the reason of a mistake, or None.
Check = Callable[[Channel], tuple[str, str] | None]


def _quoted(form: str) -> str:
    """Put the example in backticks. The words after it begin at the first comma or semicolon outside of brackets and quotes."""
    depth, text = 0, False
    for at, sign in enumerate(form):
        text ^= sign == '"'
        depth += 0 if text else (sign in "[{") - (sign in "]}")
        if not text and not depth and form[at : at + 2] in (", ", "; "):
            return f"`{form[:at]}`{form[at:]}"
    return f"`{form}`"


def default_text() -> str:
    """The channels.yaml of a new installation: one channel on all platforms, with every key explained."""
    return files("phantoms_dagster.domain").joinpath("channels_default.yaml").read_text(encoding="utf-8")


def parse(content: str, *, name: str = "channels.yaml", check: Check = lambda _channel: None) -> dict[str, Channel]:
    """The channels by name; the first one is the default. `check` is called for each of them.

    Raises InvalidInput, which lists every mistake in the order of lines, each with its line, channel, key, reason and right form.
    """
    try:
        loader = _Loader(content)
        root = loader.get_single_node()
        document = loader.construct_document(root) if root is not None else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{name}{_not_yaml(content, error)}") from error
    entries = document.get("channels") if isinstance(document, Mapping) else None
    if not isinstance(entries, Mapping) or not entries:
        raise InvalidInput(f"{name} needs a mapping `channels:` with at least one channel")
    assert isinstance(document, Mapping)
    wrong = [_Wrong(_line(root, (key,)), f"unknown key {key!r} next to `channels`") for key in document if key != "channels"]
    channels: dict[str, Channel] = {}
    for key, fields in entries.items():
        place = _Place(str(key), content, root)
        channel, mistakes = _channel(fields, place, check)
        wrong += [place.wrong(path, reason) for path, reason in mistakes]
        if channel is not None:
            channels[place.key] = channel
    if wrong:
        raise InvalidInput(_message(name, wrong))
    return channels


@dataclass(frozen=True)
class _Wrong:
    """One mistake: its line, if known, and its description."""

    line: int | None
    text: str

    def __str__(self) -> str:
        return f" line {self.line}: {self.text}" if self.line is not None else f": {self.text}"


def _message(name: str, wrong: Sequence[_Wrong]) -> str:
    """One mistake on one line, several on a line each."""
    if len(wrong) == 1:
        return f"{name}{wrong[0]}"
    lines = [f"  {str(one).lstrip(': ')}" for one in sorted(wrong, key=lambda one: one.line or 0)]
    return "\n".join([f"{name}: {len(wrong)} mistakes", *lines])


# Placeholders for required keys that are wrong or missing, so that the rest of the channel can still be checked.
_PLACEHOLDERS: Mapping[str, Any] = {"title": "-", "brand_voice": "-", "accounts": {_FIRST: "-"}}
# The path and the description of each mistake in a channel.
_Mistakes = list[tuple[Path, str]]


@dataclass(frozen=True)
class _Place:
    """The channel `key` within the file: the file's content and its YAML nodes."""

    key: str
    content: str
    root: yaml.Node | None

    def wrong(self, path: Path, reason: str) -> _Wrong:
        """The mistake at `path`, with its line and the right form."""
        field = str(path[0]) if path else ""
        named = f": {'.'.join(str(part) for part in path)}" if path else ""
        form = f"; write it like {_quoted(FORMS[field])}" if field in FORMS else ""
        return _Wrong(_line(self.root, ("channels", self.key, *path)), f"channel {self.key!r}{named}: {reason}{form}")

    def is_cut(self, path: Path) -> bool:
        """Whether the line of `path` has a #, which begins a comment."""
        line = _line(self.root, ("channels", self.key, *path))
        return line is not None and "#" in self.content.splitlines()[line - 1]


def _channel(fields: Any, place: _Place, check: Check) -> tuple[Channel | None, _Mistakes]:
    """The channel, and every mistake in it. Keys with a mistake are left out of the later checks."""
    if not isinstance(fields, Mapping):
        return None, [((), "must be a mapping of settings")]
    mistakes = list(_unusable(fields, place))
    bad = {str(path[0]) for path, _ in mistakes}
    written = {str(key): _stripped(value) for key, value in fields.items() if str(key) not in bad}
    channel: Channel | None = None
    for name in (place.key, "channel"):  # the second time without what the model refuses
        try:
            channel = WRITTEN_CHANNEL.validate_python({"name": name, **written})
            break
        except ValidationError as error:
            found = [one for one in _refused(error, place, written) if not one[0] or str(one[0][0]) not in bad]
        except (OSError, UnicodeError):  # `Europe` alone is a folder of time zones, not one
            found = [(("timezone",), "unknown time zone; use a name such as Europe/Berlin")]
        mistakes += found
        bad |= {str(path[0]) for path, _ in found if path}
        written = {**_PLACEHOLDERS, **{key: value for key, value in written.items() if key not in bad}}
    if channel is not None:
        # A key that depends on a key with a mistake cannot be checked.
        depends_on = {
            "tokens": {"accounts"},
            "voice": {"language"},
            "language": {"voice"},
            "slots": {"accounts", "posting_hours", "min_distance_minutes"},
            **{platform.spec.name: {"accounts"} for platform, _ in platforms_with_a_key()},
        }
        for path, reason in _beyond_the_model(channel, check):
            if not bad & ({str(path[0])} | depends_on.get(str(path[0]), set())):
                mistakes.append((path, reason))
    return (None if mistakes else channel), mistakes


def _refused(error: ValidationError, place: _Place, written: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield what the model refuses, once for each key, in terms of the file."""
    seen: set[Path] = set()
    for path, reason in located_problems(error):
        if path[:1] == ("name",):
            yield (), f"the name {place.key!r} may only have lower-case letters, digits, - and _, at most 40"
            continue
        if path[:1] == ("tokens",) and path[1:] and path[1] not in written.get("tokens", {}):
            path = ("accounts", path[1], "token")  # noqa: PLW2901 - the person wrote it there
        if path[:2] not in seen:
            seen.add(path[:2])
            yield path, reason


def _unusable(fields: Mapping[Any, Any], place: _Place) -> Iterator[tuple[Path, str]]:
    """Yield unknown keys, empty values and unusable texts of a channel."""
    if "name" in fields:
        yield ("name",), "the channel's name is its key; remove this line"
    for unknown in fields:
        if unknown != "name" and unknown not in Channel.model_fields:
            yield (str(unknown),), f"there is no such key; the keys are {', '.join(FORMS)}"
    for path in _empty(fields, ()):
        cut = place.is_cut(path)
        yield path, f"nothing is here, because {_COMMENT}" if cut else "nothing is here; give it a value or remove the line"
    for path, text in _texts(_stripped(fields), ()):
        if (problem := _text_problem(path, text)) is not None:
            yield path, problem
    if "accounts" in fields and fields["accounts"] is not None and not fields["accounts"]:
        yield ("accounts",), "a channel needs at least one account to post to"


def _beyond_the_model(channel: Channel, check: Check) -> Iterator[tuple[Path, str]]:
    """Yield mistakes by rules that cannot be in `Channel`, because channels stored by older versions may break them."""
    for platform in channel.tokens:
        if platform not in channel.accounts:
            yield ("tokens", str(platform)), f"there is no {platform.title} account under `accounts`; add it or remove this"
    budget = channel.budget_usd
    if budget > _MOST_USD or budget % _SMALLEST_USD:
        yield ("budget_usd",), f"should be at most {_MOST_USD:,} and have at most six decimals"
    yield from _slot_problems(channel)
    if (found := check(channel)) is not None:
        yield (found[0],), found[1]
    for platform in channel.accounts:
        key = platform.spec.channel_key
        if key is not None and key.required is not None and channel.key_of(platform) is None:
            yield (platform.spec.name,), key.required.mistake


def _slot_problems(channel: Channel) -> Iterator[tuple[Path, str]]:
    """Yield slots that no post could ever take."""
    hours, week = channel.posting_hours, 7 * 24 * 60
    taken: list[tuple[int, PostingSlot]] = []
    for number, slot in enumerate(channel.slots):
        for platform in slot.platforms:
            if platform not in channel.accounts:
                yield ("slots", number, "platforms"), f"there is no {platform.title} account under `accounts`"
        if slot.clock.hour not in hours:
            yield (
                ("slots", number, "time"),
                f"{slot.time} is outside the posting hours from {hours.start}:00 to {hours.end}:00",
            )
        for day in slot.days:
            minute = DAYS.index(day) * 24 * 60 + slot.clock.hour * 60 + slot.clock.minute
            for other_minute, other in taken:
                shared = [platform for platform in channel.accounts if slot.serves(platform) and other.serves(platform)]
                apart = min((minute - other_minute) % week, (other_minute - minute) % week)
                if shared and (apart == 0 or apart < channel.min_distance_minutes):
                    yield (
                        ("slots", number),
                        f"{slot.time} on {day} is {counted(apart, 'minute')} from the slot at {other.time} on {shared[0].title}, "
                        f"and min_distance_minutes is {channel.min_distance_minutes}",
                    )
                    break
            else:
                taken.append((minute, slot))
                continue
            break


def _empty(value: Any, path: Path) -> Iterator[Path]:
    """Yield the paths of missing values."""
    if value is None:
        yield path
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _empty(inner, (*path, str(key)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _empty(inner, (*path, number))


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Yield all texts with their paths."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, (*path, str(key)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, (*path, number))


def _stripped(value: Any) -> Any:
    """The same without white space around any text: YAML's `|` and `>` end it with a line feed."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Mapping):
        return {key: _stripped(inner) for key, inner in value.items()}
    return [_stripped(inner) for inner in value] if isinstance(value, list) else value


def _text_problem(path: Path, text: str) -> str | None:
    """Why a channel cannot have that text. It is not repeated: it may be a secret in the wrong place."""
    if not text:
        return "this text is empty; write something, or remove it"
    if len(text.splitlines()) > 1 and path[0] not in _LONG_TEXTS:
        return "goes over several lines; write it on one"
    return unfit(text)


class _Loader(yaml.SafeLoader):
    """Loads every value as the text that was written: `no` is Norwegian, not False, and an account may be a number.

    A repeated key is refused. YAML would silently keep only the last of two channels or settings with the same name.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {  # noqa: RUF012  the name and kind are PyYAML's
        first: [(tag, pattern) for tag, pattern in resolvers if tag in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """See SafeLoader."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} appears twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _not_yaml(content: str, error: Exception) -> str:
    """Why the file is not valid YAML, with the line that a person must correct."""
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or error)
    lines = content.splitlines()
    last = min(mark.line, len(lines) - 1) if mark else -1
    # YAML notices an unclosed list only at the next line or at the end of the file.
    for number in range(last, -1, -1):
        if _CUT_OFF.match(lines[number]):
            key = lines[number].split(":")[0].strip(" -")
            form = f"; write it like {_quoted(FORMS[key])}" if key in FORMS else '; put it in quotes: "#fun"'
            return f" line {number + 1}: {_COMMENT}, so the rest of this line is missing{form}"
    return f" line {last + 1}: not valid YAML: {problem}" if mark and lines else f" is not valid YAML: {problem}"


def _line(root: yaml.Node | None, path: Sequence[str | int]) -> int | None:
    """The line (from 1) of the value at that path, or of its nearest existing parent."""
    node, line = root, None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
