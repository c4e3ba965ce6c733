"""The sandbox's writer: composes a script from a brief without a language model. All functions are pure.

It uses the brief's own words: the title becomes the hook, each fact a scene. If that is too short for a video, it adds English
sentences about how this video is made, which are true for every brief.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import regex

from phantoms_dagster.domain import phrases
from phantoms_dagster.domain.function_words import words
from phantoms_dagster.domain.hashtags import repaired, unique
from phantoms_dagster.domain.languages import UNSPACED, primary
from phantoms_dagster.domain.markup import spoken
from phantoms_dagster.domain.sentences import split
from phantoms_dagster.domain.text import WORD_CHARACTER

NOTICE = "Written by the Phantoms sandbox, not by a language model."
WORDS_PER_SECOND = 2.4
DEFAULT_WORDS = 72
# 15 s and 57 s of speech: a script stays within these limits whatever length is requested.
MIN_WORDS, MAX_WORDS = 36, 136
MOST_SCENES = 6
NARRATION_CHARACTERS, HOOK_CHARACTERS, TITLE_CHARACTERS, CAPTION_CHARACTERS = 600, 200, 100, 1_500
# The longest headline in normal type. For a longer sentence one of its clauses is used. If it has none, the whole sentence is
# used in smaller type, up to `LONGEST_HEADLINE`.
SHORT_HEADLINE, LONGEST_HEADLINE = 60, 110
MOST_WORDS_OF_A_TITLE = 3  # this many become hashtags

_EMOJI = re.compile(r"[\U0001F000-\U0001FAFF\uFE0F\u200D]")
_WIDE = re.compile(r"[\u2E80-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF]")
_ENDED = regex.compile(r"[.!?…。！？؟।][\p{Pe}\p{Pf}\"']*$")  # noqa: RUF001
_FULL_STOP = regex.compile(r"(?<=[\p{L}\p{M}\p{N}]{2}|[\p{Pe}\p{Pf}])[.。]$")
# Words in titles that make no useful hashtag.
_COMMON = words(
    "a about after all always an and are as at be because been before being best but by can could did do does don ever "
    "every few first for from get gets give goes good had has have hear heard her here his how if in into is isn it its "
    "just keep keeps last less like long look looks made make makes many may might more most much must need needs never "
    "new not now of on one only or our out over really same say says see should so some stay stays still such take takes "
    "than that the their them then there these they thing things this those three through to too turn turns two until up "
    "us very was way we were what when where which while who why will with work works would year years you your thousand "
    "thousands"
)
# An angle may be an instruction about how to tell the story. That is not for viewers.
_INSTRUCTIONS = words(
    "add as ask avoid be begin build call close compare contrast describe do don't end explain focus frame give imagine "
    "in include introduce keep lead leave let like make mention never no open play please point put reveal say set show "
    "speak start stay stress talk tell treat use with write"
)


class _Line(NamedTuple):
    """A spoken text and its headline, which may be empty."""

    spoken: str
    shown: str


# Statements that are true for every video of the sandbox, used when a brief is too short.
_NOTES = (
    _Line("The sandbox writes without a language model, so it invents nothing.", "It invents nothing"),
    _Line("Add facts to the brief, and the next script tells them word for word.", "Add facts to the brief"),
    _Line("The voice was made on this machine, sentence by sentence.", "A voice from this machine"),
    _Line("Every caption waits for its word to be spoken.", "Captions follow the voice"),
    _Line("A person approves the video before anybody else sees it.", "A person approves it"),
    _Line("Each platform gets a file that fits its rules.", "One file for each platform"),
    _Line("Give Phantoms the key of a language model, and that model writes the next script.", "Or plug in a language model"),
    _Line("A post that went out is never made a second time.", "Never posted twice"),
)


def speakable(text: str) -> str:
    """The text as plain words on one line, without markdown, web addresses and emoji, as the prompt requires."""
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(_EMOJI.sub(" ", spoken(text).text).split()))


def compose(brief: Mapping[str, Any], *, seed: str) -> dict[str, Any]:
    """Compose a script (`hook`, `scenes`, `title`, `caption`, `hashtags`) for a brief.

    It reads these optional fields of the brief: `title`, `angle`, `facts`, `language`, `target_words`, `hashtags` and
    `banned_words` (added sentences with such a word are left out; the brief's own words are kept). The same brief and seed give
    the same script.
    """
    rng = random.Random(seed)
    language = _string(brief.get("language"))
    title = speakable(_string(brief.get("title"))) or "Untitled"
    angle = _angle(speakable(_string(brief.get("angle"))))
    facts = [_sentence(fact) for fact in map(speakable, _strings(brief.get("facts"))) if fact]
    target = _target(brief.get("target_words"))

    opening = _sentence(phrases.shortened(title, HOOK_CHARACTERS - 1, language))
    hook, begun = _hook(opening, angle, facts, rng)
    said = _told(([angle] if angle and begun != angle else []) + facts, target - _words(hook), language)
    told = " ".join([hook, *(line.spoken for line in said)])
    missing = 0 if primary(language) in UNSPACED else -(-target // 2) - _words(told)
    lines = [*said, *_notes(missing if said else max(1, missing), len(facts), _strings(brief.get("banned_words")), rng)]
    about = [begun or angle] if begun or angle else facts[:1]
    caption = " ".join([_sentence(title), *about])
    return {
        "hook": hook,
        "scenes": [_scene(part) for part in _parted(lines)],
        "title": phrases.shortened(phrases.trimmed(title), TITLE_CHARACTERS, language),
        "caption": f"{phrases.shortened(caption, CAPTION_CHARACTERS - len(NOTICE) - 1, language)} {NOTICE}",
        "hashtags": _hashtags(_strings(brief.get("hashtags")), title),
    }


def tokens(text: str) -> int:
    """The approximate number of tokens in a text: four characters each, as in English prose."""
    return -(-len(text) // 4)


def _hook(opening: str, angle: str, facts: Sequence[str], rng: random.Random) -> tuple[str, str]:
    """The hook, and the angle if it is part of the hook. Scripts of the same brief differ in where the angle is spoken."""
    both = f"{opening} {angle}"
    if angle and len(both) <= HOOK_CHARACTERS and (rng.random() < 0.7 or not facts):
        return both, angle
    return opening, ""


def _told(texts: Sequence[str], room: int, language: str) -> list[_Line]:
    """The brief's texts in order, each completely or not at all, as many as fit."""
    chosen: list[_Line] = []
    for text in texts:
        left = room - sum(_weight(line.spoken) for line in chosen)
        kept = text
        if _weight(text) > left or len(text) > NARRATION_CHARACTERS:
            kept = phrases.whole(text, min(left * (2 if _WIDE.search(text) else 7), NARRATION_CHARACTERS), language)
        if kept and _weight(kept) <= max(left, 0):
            chosen.append(_Line(_sentence(kept), _shown(kept, language)))
    return chosen


def _notes(fewest: int, facts: int, banned: Sequence[str], rng: random.Random) -> list[_Line]:
    """Added lines with at least `fewest` words in total; none if not needed. The first line says what the brief contains."""
    if fewest <= 0:
        return []
    has = "no facts yet" if not facts else "one fact" if facts == 1 else f"{_NUMBERS.get(facts, facts)} facts"
    first = _Line(f"This brief has a title and {has}.", f"A title and {has}")
    permitted = [line for line in _NOTES if not _has_any(line, banned)]
    rng.shuffle(permitted)
    chosen = [] if _has_any(first, banned) else [first]
    while permitted and sum(_words(line.spoken) for line in chosen) < fewest:
        chosen.append(permitted.pop())
    return chosen


_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}


def _parted(lines: Sequence[_Line]) -> list[list[_Line]]:
    """Group the lines into scenes, in order: one line per scene, or several if there are many."""
    count = min(MOST_SCENES, len(lines))
    return [list(lines[n * len(lines) // count : (n + 1) * len(lines) // count]) for n in range(count)]


def _scene(lines: Sequence[_Line]) -> dict[str, str]:
    """A scene: its narration, as much as is allowed, and the headline of its first line that has one."""
    said = lines[0].spoken
    for line in lines[1:]:
        if len(said) + 1 + len(line.spoken) <= NARRATION_CHARACTERS:
            said = f"{said} {line.spoken}"
    return {"narration": said, "on_screen_text": lines[0].shown}


def _shown(text: str, language: str) -> str:
    """The headline of a text: its first sentence or a clause of it.

    A long sentence is kept whole if it fits in smaller type; else none.
    """
    first = next(iter(split(text, language)), text)
    for most in (SHORT_HEADLINE, LONGEST_HEADLINE):
        if shown := phrases.headline(first, most, language):
            shown = _FULL_STOP.sub("", shown)
            return shown[:1].upper() + shown[1:]
    return ""


def _angle(text: str) -> str:
    """The angle if it can be spoken: a sentence that is not an instruction. Else an empty text."""
    first = text.split(maxsplit=1)[0].casefold().strip(",.:;") if text else ""
    return text if _ENDED.search(text) and first not in _INSTRUCTIONS else ""


def _words(text: str) -> int:
    return len(text.split())


def _weight(text: str) -> int:
    """The spoken length of a text in words. Text in scripts without spaces is measured by its characters."""
    return max(_words(text) + len(_WIDE.findall(text)) // 2, len(text) // 12)


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    stop = "。" if _WIDE.search(text[-1:]) else "."
    return text if _ENDED.search(text) else f"{phrases.trimmed(text) or text}{stop}"


def _has_any(line: _Line, banned: Sequence[str]) -> bool:
    patterns = [re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE) for word in banned if word]
    return any(pattern.search(text) for pattern in patterns for text in line)


def _hashtags(given: Iterable[str], title: str) -> list[str]:
    named = [w for w in regex.findall(f"{WORD_CHARACTER}+", title) if len(w) > 3 and w.casefold() not in _COMMON]
    of_title = [word.casefold() for word in named if len(word) <= 30][:MOST_WORDS_OF_A_TITLE]
    tags = unique(tag for word in [*given, *of_title] for tag in repaired(word))
    return [str(tag) for tag in tags[:8]]


def _target(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return DEFAULT_WORDS
    return min(MAX_WORDS, max(MIN_WORDS, round(value)))


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _strings(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
