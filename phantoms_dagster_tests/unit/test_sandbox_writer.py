"""The scripts of the sandbox: the brief's own words, whole headlines, no filler."""

# ruff: noqa: RUF001  texts in many scripts

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import phantoms_dagster.cli
from phantoms_dagster.domain import phrases
from phantoms_dagster.domain.function_words import WORDS
from phantoms_dagster.domain.models import Channel, Platform
from phantoms_dagster.domain.sentences import split
from phantoms_dagster.providers.openai.answer import LONGEST, SHORTEST
from phantoms_dagster.sandbox.openai.writer import _NOTES, NOTICE, compose, speakable

DEMO = yaml.safe_load((Path(phantoms_dagster.cli.__file__).parent / "demo" / "briefs.yaml").read_text(encoding="utf-8"))["briefs"]
BRIEFS: list[dict[str, Any]] = [
    *DEMO,
    {"title": "Why octopuses have three hearts", "facts": ["The third heart stops beating while it swims."]},
    {
        "title": "The quietest place on Earth",
        "facts": ["In a chamber in Minneapolis, you hear your own blood; nobody stays for long."],
    },
    {
        "title": "What a teaspoon of a neutron star weighs, and what would happen if somebody dropped it on your kitchen floor",
        "facts": [
            "A neutron star packs more mass than the Sun into a ball as wide as a city, which makes it the densest thing that can "
            "be seen in the sky at all.",
            "One teaspoon weighs about a billion tonnes: as much as a mountain.",
            "It would fall through the Earth, because nothing on the way could hold it.",
        ],
    },
    {
        "title": "5 myths about sleep",
        "angle": "Tell it like a doctor who is tired of the myths.",
        "facts": [f"Myth number {n} is wrong, and the evidence has been in the open for {n} decades." for n in range(1, 10)],
    },
    {
        "title": "Warum Kraken drei Herzen haben",
        "language": "de",
        "angle": "Drei Herzen haben ihren Preis.",
        "facts": [
            "Zwei Herzen pumpen das Blut durch die Kiemen, das dritte schickt es durch den Körper.",
            "Das dritte Herz hört auf zu schlagen, während der Krake schwimmt, weshalb er lieber kriecht.",
            "Sein Blut ist blau, weil es Sauerstoff mit Kupfer statt mit Eisen trägt.",
        ],
    },
    {
        "title": "Pourquoi le miel ne se gâte jamais",
        "language": "fr",
        "facts": [
            "Le miel contient si peu d'eau que les bactéries y sèchent.",
            "Les abeilles ajoutent une enzyme, ce qui produit lentement de l'eau oxygénée dans chaque pot de la ruche.",
            "Des pots trouvés dans des tombes égyptiennes étaient encore comestibles.",
        ],
    },
    {
        "title": "章鱼为什么有三颗心脏",
        "language": "zh-Hans",
        "facts": ["两颗心脏把血液送到鳃里，第三颗送到全身。", "章鱼游泳的时候，第三颗心脏会停止跳动。", "它的血是蓝色的。"],
    },
    {"title": "Tides"},
    {"title": "Untold", "facts": ["Short one", "It works: really"]},
]
FILLER = re.compile(
    r"here is the|let us|stay for|hold that|picture it|look again|think of|ask yourself|notice|pause here|let that sink|"
    r"keep it simple|"
    r"one idea at|next step|save this|follow|tell us|below|guess|what would you|are you ready|believe it or not|did you know",
    re.IGNORECASE,
)
SEEDS = [str(n) for n in range(8)]


def sentences_of(script: dict[str, Any], language: str) -> list[str]:
    return [s for scene in script["scenes"] for s in split(scene["narration"], language)]


def problem_of(headline: str, script: dict[str, Any], language: str) -> str | None:
    """Return why a headline is not a whole phrase. It must end where a sentence or a clause of the spoken text ends."""
    if not headline or headline in [note.shown for note in _NOTES] or headline.startswith("A title and "):
        return None
    last = re.findall(r"\w+", headline)[-1].casefold()
    words = WORDS.get(language.split("-", maxsplit=1)[0] or "en")
    for sentence in sentences_of(script, language):
        if sentence.casefold().startswith(headline.casefold()):
            rest = sentence[len(headline) :]
            if re.fullmatch(r"[.!?。！？؟]*", rest):
                return None
            starts = r"\s*[;:；：—–]|\s*,\s|\s+(?:while|because|although|whereas|parce qu|tandis qu|alors qu)"
            if not re.match(starts, rest):
                return f"goes on with {rest[:30]!r}"
            return "ends with a small word" if words and last in words.never | words.rarely else None
    return "is nowhere in what is spoken"


@pytest.mark.parametrize("brief", BRIEFS, ids=lambda brief: brief["title"][:30])
@pytest.mark.parametrize("target", [36, 72, 132])
def test_every_headline_is_a_whole_phrase(brief: dict[str, Any], target: int) -> None:
    """Each video of the demo had the headline THE THIRD HEART STOPS BEATING WHILE."""
    language = brief.get("language", "en")
    for seed in SEEDS:
        script = compose({**brief, "target_words": target}, seed=seed)
        for shown in (scene["on_screen_text"] for scene in script["scenes"]):
            assert problem_of(shown, script, language) is None, shown


@pytest.mark.parametrize("brief", BRIEFS, ids=lambda brief: brief["title"][:30])
def test_a_script_says_what_the_brief_says_and_has_no_filler(brief: dict[str, Any]) -> None:
    given_words = " ".join([brief["title"], brief.get("angle", ""), *brief.get("facts", [])]).casefold()
    notes = {note.spoken for note in _NOTES}
    for seed in SEEDS:
        script = compose(brief, seed=seed)
        spoken = [*split(script["hook"], brief.get("language", "en")), *sentences_of(script, brief.get("language", "en"))]
        assert len(set(spoken)) == len(spoken), "nothing is said twice"
        for sentence in spoken:
            if sentence in notes or sentence.startswith("This brief has a title and "):
                continue
            assert sentence.rstrip(".…。").casefold() in given_words
            assert not FILLER.search(sentence)
        assert script["hook"].casefold().startswith(brief["title"][:40].casefold())


@pytest.mark.parametrize("brief", DEMO, ids=lambda brief: brief["title"][:30])
def test_a_brief_with_facts_keeps_its_order_and_gets_no_words_of_the_sandbox(brief: dict[str, Any]) -> None:
    for seed in SEEDS:
        script = compose({**brief, "target_words": 72}, seed=seed)
        spoken = " ".join([script["hook"], *(scene["narration"] for scene in script["scenes"])])
        places = [spoken.index(fact) for fact in brief["facts"]]
        assert places == sorted(places)
        assert "sandbox" not in spoken
        assert all(scene["on_screen_text"] for scene in script["scenes"])


def test_an_angle_that_tells_how_to_tell_it_is_not_read_aloud() -> None:
    for angle in ("Tell it like a doctor.", "funny, for kids", "Start with the third heart!"):
        assert angle not in str(compose({"title": "Three hearts", "angle": angle, "facts": ["It swims."]}, seed="1"))
    assert "They come at a price." in str(compose({"title": "Hearts", "angle": "They come at a price."}, seed="1"))


def test_a_title_beyond_the_limit_ends_with_a_whole_word() -> None:
    title = "What happens to " + "the deep and " * 12 + "end"
    assert compose({"title": title}, seed="1")["title"].endswith("deep…")
    assert compose({"title": "Three hearts:"}, seed="1")["title"] == "Three hearts"


_WORDS = st.lists(st.text(alphabet=st.characters(categories=["L", "N"]), min_size=1, max_size=12), min_size=1, max_size=40).map(
    " ".join
)
_PROSE = st.lists(
    st.sampled_from(
        ["the", "heart", "stops,", "while", "and", "because", "it", "swims.", "blood;", "blue", "water", "not", "— so", "why?"]
    ),
    min_size=1,
    max_size=60,
).map(" ".join)


@given(
    title=(_WORDS | _PROSE).map(lambda text: text[:200]),
    angle=st.just("") | _PROSE,
    facts=st.lists((_WORDS | _PROSE).map(lambda text: text[:500]), max_size=8),
    words=st.integers(36, 132),
    seed=st.text(max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_any_brief_gives_a_script_that_the_product_takes(title: str, angle: str, facts: list[str], words: int, seed: str) -> None:
    script = compose({"title": title, "angle": angle, "facts": facts, "target_words": words}, seed=seed)
    assert 1 <= len(script["scenes"]) <= 6
    assert 1 <= len(script["hook"]) <= 200
    assert 1 <= len(script["title"]) <= 100
    assert len(script["caption"]) <= 1_500
    assert script["caption"].endswith(NOTICE)
    spoken = [script["hook"], *(scene["narration"] for scene in script["scenes"])]
    assert SHORTEST * words <= len(" ".join(spoken).split()) <= LONGEST * words
    for scene in script["scenes"]:
        assert 1 <= len(scene["narration"]) <= 600
        assert len(scene["on_screen_text"]) <= 110
        assert scene["on_screen_text"] == phrases.trimmed(scene["on_screen_text"])


@given(
    facts=st.lists(st.integers(1, 60).map(lambda n: " ".join(["water"] * n)), max_size=8),
    seconds=st.integers(15, 55),
    seed=st.text(max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_a_script_is_no_longer_than_it_was_asked_to_be_and_no_shorter_than_is_taken(
    facts: list[str], seconds: int, seed: str
) -> None:
    script = compose({"title": "Why tides turn", "facts": facts, "target_words": round(seconds * 2.4)}, seed=seed)
    spoken = len(" ".join([script["hook"], *(scene["narration"] for scene in script["scenes"])]).split())
    assert SHORTEST * round(seconds * 2.4) <= spoken <= max(round(seconds * 2.4), 36) + 14


def test_the_narration_is_plain_speech() -> None:
    fact = "- **Tides** follow the [moon](https://x.example) \U0001f319, see https://x.example/a"
    script = compose({"title": "Tides", "facts": [fact]}, seed="1")
    spoken = " ".join([script["hook"], *(scene["narration"] for scene in script["scenes"])])
    assert "Tides follow the moon, see" in spoken
    assert not re.search(r"[*\[\]#]|http|[\U0001F000-\U0001FAFF]", spoken)
    assert not re.search(r"\d", spoken)
    assert speakable("a  **b** ,") == "a b,"


def test_notes_avoid_the_banned_words() -> None:
    for seed in SEEDS:
        script = str(compose({"title": "Tides", "banned_words": ["machine", "brief"]}, seed=seed)).casefold()
        assert "machine" not in script
        assert "brief" not in script


def test_a_channel_without_limits_of_its_own_asks_for_what_the_writer_can_do() -> None:
    channel = Channel(name="a", title="A", brand_voice="calm", accounts={Platform("youtube"): "a"})
    assert compose({"title": "Tides", "language": channel.language}, seed="")["hook"] == "Tides."
