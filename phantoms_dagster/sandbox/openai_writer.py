"""The sandbox's writer: composes a readable script from a brief, without a language model. Pure functions of their arguments.

It only says what the brief says; where the brief is silent it speaks to the viewer and claims nothing. Framing lines are
English whatever the brief's language. How the API wraps a script belongs in `sandbox.openai`.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from phantoms_dagster.domain.hashtags import repaired, unique
from phantoms_dagster.domain.markup import spoken
from phantoms_dagster.domain.text import WORD_CHARACTER

NOTICE = "Written by the Phantoms sandbox, not by a language model."
WORDS_PER_SECOND = 2.4
DEFAULT_WORDS = 72
# 15 s and 57 s of speech: a short video stays inside both whatever it is asked for.
MIN_WORDS, MAX_WORDS = 36, 136
MAX_UNIT_CHARACTERS = 240

_EMOJI = re.compile(r"[\U0001F000-\U0001FAFF\uFE0F\u200D]")
_WIDE = re.compile(r"[\u2E80-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF]")
_STOPWORDS = frozenset(
    re.findall(
        r"\w+",
        "a about an and are as at be because but by for from have has how in into is it its of on or our so than that the their "
        "them then there these they this through to was we what when where which who why will with you your",
    )
)

# (spoken, shown). They address the viewer; none states a fact, so each is true of any topic.
_LINES: tuple[tuple[str, str], ...] = (
    ("Take a second and picture it.", "Picture it"),
    ("Look once, then look again.", "Look again"),
    ("Hold that thought.", "Hold that thought"),
    ("Start with the plain question: what is going on here?", "What is going on?"),
    ("Say it in one sentence, out loud.", "One sentence"),
    ("Notice the first thing that comes to mind.", "First thought?"),
    ("Now ask yourself why that matters to you.", "Why it matters"),
    ("If it feels familiar, good; stay with it a little longer.", "Feels familiar?"),
    ("If it feels new, even better.", "Feels new?"),
    ("Think of the last time it crossed your path.", "Seen it before?"),
    ("Would you explain it the same way to a friend?", "Tell a friend"),
    ("Try to guess before you read on.", "Your guess?"),
    ("Small details do a lot of work.", "Small details"),
    ("Keep the question, even when the answer sounds easy.", "Keep the question"),
    ("Pause here if you need a moment.", "Pause here"),
    ("There is more than one way to see it.", "Another view"),
    ("Pick the part you care about most and start there.", "Start there"),
    ("Write down one word that sums it up for you.", "One word"),
    ("Be honest: what would you like to know next?", "What next?"),
    ("Check it for yourself before you pass it on.", "Check it yourself"),
    ("Let that sink in.", "Let it sink in"),
    ("Compare it with what you expected a minute ago.", "What you expected"),
    ("Keep it simple and keep it true.", "Simple and true"),
    ("Ready for the next step?", "Next step"),
    ("One idea at a time is enough.", "One idea at a time"),
    ("Leave your best guess below and see who agrees.", "Best guess below"),
)
_HOOKS = (
    "Here is the short version.",
    "Give it half a minute.",
    "Let us take it step by step.",
    "Stay for the last line.",
)
_CLOSINGS = (
    ("Save this one and come back to it.", "Save this"),
    ("What would you add? Tell us below.", "What would you add?"),
    ("Follow along for the next one.", "Follow for more"),
)


@dataclass(frozen=True)
class _Unit:
    spoken: str
    shown: str

    @functools.cached_property
    def words(self) -> int:
        """Its weight in speech: words; a text written without spaces weighs by its characters."""
        return max(len(self.spoken.split()) + len(_WIDE.findall(self.spoken)) // 2, len(self.spoken) // 12)


_ASIDES = tuple(_Unit(spoken, shown) for spoken, shown in _LINES)


def speakable(text: str) -> str:
    """The text as plain words on one line: no markdown, no addresses, no emoji, as the instructions ask."""
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(_EMOJI.sub(" ", spoken(text).text).split()))


def compose(brief: Mapping[str, Any], *, seed: str) -> dict[str, Any]:
    """A script (`hook`, `scenes`, `title`, `caption`, `hashtags`) for a brief.

    Read from the brief, each optional: `title`, `angle`, `facts`, `target_words`, `hashtags`, `banned_words` (framing lines
    with such a word are left out; the brief's own words are kept). The same brief and seed give the same script.
    """
    rng = random.Random(seed)
    title = speakable(_string(brief.get("title"))) or "Untitled"
    angle = speakable(_string(brief.get("angle")))
    facts = [f for f in map(speakable, _strings(brief.get("facts"))) if f]
    banned = _strings(brief.get("banned_words"))
    target = _target(brief.get("target_words"))

    topic = _cut(title, words=12, characters=110)
    hook = f"{_sentence(topic)} {rng.choice(_permitted(_HOOKS, banned))}"
    scenes = _scenes(angle, facts, target - len(hook.split()), banned, rng)
    about = [_sentence(part) for part in ([angle] if angle else facts[:1])]
    return {
        "hook": hook,
        "scenes": scenes,
        "title": _cut(title, words=100, characters=100),
        "caption": " ".join([_sentence(title), *about, NOTICE])[:1_500],
        "hashtags": _hashtags(_strings(brief.get("hashtags")), title),
    }


def tokens(text: str) -> int:
    """About how many tokens a text is: four characters each, as for English prose."""
    return -(-len(text) // 4)


def _scenes(angle: str, facts: Sequence[str], budget: int, banned: Sequence[str], rng: random.Random) -> list[dict[str, str]]:
    count = 3 if budget < 55 else 4 if budget < 80 else 5 if budget < 105 else 6
    closings = [c for c in _CLOSINGS if c[0] in _permitted([spoken for spoken, _ in _CLOSINGS], banned)]
    closing = _Unit(*rng.choice(closings))
    room = budget - closing.words
    said = _said(angle, facts, room, count - 1)
    missing = max(0, count - 1 - len(said))
    asides = _asides(room - _words(said), missing, banned, rng)

    parts: list[list[_Unit]] = [[] for _ in range(count)]
    for i, unit in enumerate(said):  # in the brief's order, spread over all scenes
        parts[i * count // max(len(said), count - 1)].append(unit)
    for unit in asides:  # an empty scene first, then the shortest
        min(parts[:-1] if not all(parts[:-1]) else parts, key=_words).append(unit)
    parts[-1].append(closing)
    return [{"narration": _narration(part), "on_screen_text": part[0].shown} for part in parts]


def _said(angle: str, facts: Sequence[str], room: int, places: int) -> list[_Unit]:
    """What the brief says, in its order, as much as fits; room is kept for a short line in each place that stays empty."""
    chosen: list[_Unit] = []
    for text in [*([angle] if angle else []), *facts]:
        kept_free = 5 * max(0, places - len(chosen) - 1)
        left = room - _words(chosen) - kept_free
        unit = _unit(text, MAX_WORDS)
        if unit.words > left:
            if chosen or left < 6:
                continue
            unit = _unit(text, left, characters=left * (2 if _WIDE.search(text) else 12))
        chosen.append(unit)
    return chosen


def _asides(words: int, at_least: int, banned: Sequence[str], rng: random.Random) -> list[_Unit]:
    """Framing lines that fill `words` words (no fewer where that can be), at least so many lines."""
    permitted = set(_permitted([spoken for spoken, _ in _LINES], banned))
    lines = [line for line in _ASIDES if line.spoken in permitted]
    rng.shuffle(lines)
    reachable: dict[tuple[int, int], tuple[_Unit, ...]] = {(0, 0): ()}
    for line in lines:
        for (count, total), chosen in list(reachable.items()):
            place = min(count + 1, at_least), total + line.words
            if total < words and place not in reachable:
                reachable[place] = (*chosen, line)
    enough = {total: chosen for (count, total), chosen in reachable.items() if count == at_least}
    best = min(enough or {0: ()}, key=lambda total: (total < words, abs(total - words)))
    return list(enough.get(best, ()))


def _narration(part: Sequence[_Unit]) -> str:
    return _cut(" ".join(unit.spoken for unit in part), words=MAX_WORDS, characters=600)


def _words(units: Iterable[_Unit]) -> int:
    return sum(unit.words for unit in units)


def _unit(text: str, words: int, characters: int = MAX_UNIT_CHARACTERS) -> _Unit:
    return _Unit(_sentence(_cut(text, words=words, characters=min(characters, MAX_UNIT_CHARACTERS))), _shown(text))


def _shown(text: str) -> str:
    """A few words that stand for the text; they do not end on an article or a preposition."""
    words = _cut(text, words=6, characters=40).rstrip(".,;:!?").split()
    while len(words) > 2 and words[-1].casefold() in _STOPWORDS:
        words.pop()
    shown = " ".join(words)
    return shown[:1].upper() + shown[1:]


def _cut(text: str, *, words: int, characters: int) -> str:
    """The start of the text within both limits, cut at a clause where that keeps at least half, else at a word."""
    kept = text.split()
    if len(kept) <= words and len(text) <= characters:
        return text
    kept = kept[: max(1, words)]
    while len(kept) > 1 and len(" ".join(kept)) > characters:
        kept.pop()
    for end in range(len(kept), len(kept) // 2, -1):
        if kept[end - 1][-1] in ".,;:!?":
            kept = kept[:end]
            break
    return " ".join(kept)[:characters].rstrip(",;:")


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text[-1:] in tuple(".!?\u3002\uff01\uff1f") else f"{text}."


def _permitted(lines: Sequence[str], banned: Sequence[str]) -> list[str]:
    """The lines without a banned word; all of them when that would leave none."""
    patterns = [re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE) for word in banned if word]
    return [line for line in lines if not any(p.search(line) for p in patterns)] or list(lines)


def _hashtags(given: Iterable[str], title: str) -> list[str]:
    words = [w for w in regex.findall(f"{WORD_CHARACTER}+", title) if len(w) > 3 and w.casefold() not in _STOPWORDS]
    tags = unique(tag for word in [*given, *(w.casefold() for w in words)] for tag in repaired(word))
    return [str(tag) for tag in tags[:8]]


def _target(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return DEFAULT_WORDS
    return min(MAX_WORDS, max(MIN_WORDS, round(value)))


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _strings(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
