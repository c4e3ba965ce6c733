"""Turns the raw body of a chat completion into a script. Finds refusals and answers that are cut off, malformed or banned.

An answer is saved with the attempt before it is parsed here. `errors` classifies failed calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from phantoms_dagster.domain import markup, phrases
from phantoms_dagster.domain.errors import Evidence, Permanent, ProviderError, Rejected
from phantoms_dagster.domain.hashtags import Hashtag, repaired, unique
from phantoms_dagster.domain.languages import UNSPACED, primary
from phantoms_dagster.domain.models import Channel, Scene, Script
from phantoms_dagster.domain.problems import reason
from phantoms_dagster.domain.text import speakable
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers import http
from phantoms_dagster.providers.openai import object as openai_object
from phantoms_dagster.providers.openai.errors import PROVIDER
from phantoms_dagster.providers.openai.prompt import target_words
from phantoms_dagster.providers.redaction import redact

MAX_HASHTAGS = 15
TITLE_LIMIT, CAPTION_LIMIT = 100, 1_500
# The prompt asks for headlines of two to six words. A whole sentence is set in smaller type, up to this width.
SHOWN_LIMIT = 110
# Outside these shares of the requested word count, the video would not be the one that was ordered.
SHORTEST, LONGEST = 0.5, 1.6


class FaultyAnswer(Exception):
    """The answer cannot be used, but another try may succeed.

    `feedback` is for the model, `final` the stage's error if none does.
    """

    def __init__(self, feedback: str, final: ProviderError) -> None:
        super().__init__(feedback)
        self.feedback = feedback
        self.final = final


def parse_script(body: JsonObject, channel: Channel) -> Script:
    """The script in a raw answer. Raises as `parse_answer` does."""
    return parse_answer(body, channel)[0]


def parse_answer(body: JsonObject, channel: Channel) -> tuple[Script, tuple[str, ...]]:
    """The script in a raw answer with repairable faults repaired, and a list of what was removed and where.

    Raises Rejected for a refusal or the content filter, where asking again is useless. Raises FaultyAnswer for an answer that is
    cut off, has no choice, no JSON or no script, or uses banned words; its `feedback` goes to the model.
    """
    content = _content(body)
    raw = openai_object.object_in(content, key="scenes")
    if raw is None:
        raise _malformed("it holds no JSON object", content)
    removed: list[str] = []
    try:
        script = Script.model_validate(_cleaned(raw, channel, removed))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {reason(e)}" for e in error.errors()[:5])
        raise _malformed(wrong, content) from error
    _check_length(script, channel, content)
    for place, text in [
        ("hook", script.hook),
        *((f"scene {n}", scene.narration) for n, scene in enumerate(script.scenes, start=1)),
    ]:
        if not speakable(text):
            raise _malformed(f"{place}: {text!r} has no word that can be spoken", content)
    words = [*(part for scene in script.scenes for part in (scene.narration, scene.on_screen_text)), script.title, script.caption]
    banned = channel.banned_in(" \n ".join([script.hook, *words, *script.hashtags]))
    if banned:
        message = f"the script uses words that {channel.name} bans: {', '.join(banned)}"
        raise FaultyAnswer(
            f"it uses words that are banned: {', '.join(banned)}",
            Rejected(message, provider=PROVIDER, code="banned_words", evidence=_evidence(content)),
        )
    return script, tuple(removed)


def text_of(body: JsonObject) -> str:
    """The model's text without its reasoning; empty when there is none."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    return openai_object.without_thoughts(_text(message if isinstance(message, dict) else {}) or "").strip()


def usage(body: JsonObject) -> tuple[int, int]:
    """Billed input and output tokens; 0 where the server reports none."""
    counts = body.get("usage")
    values = [counts.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(counts, dict) else [0, 0]
    billed = [value if isinstance(value, int) and value > 0 else 0 for value in values]
    return billed[0], billed[1]


def cost(tokens: tuple[int, int], *, input_usd_per_million: float, output_usd_per_million: float) -> Decimal:
    """The list price of input and output tokens in US dollars. Cached input is billed lower, so the bill is never higher."""
    tokens_in, tokens_out = tokens
    # Through str, so that 0.1 becomes exactly a tenth.
    prices = Decimal(str(input_usd_per_million)), Decimal(str(output_usd_per_million))
    return (tokens_in * prices[0] + tokens_out * prices[1]) / 1_000_000


def normalised(hashtags: Iterable[str]) -> tuple[Hashtag, ...]:
    """The model's hashtags, repaired, without duplicates (ignoring case), at most 15."""
    return unique(tag for written in hashtags for tag in repaired(written))[:MAX_HASHTAGS]


def _content(body: JsonObject) -> str:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _fault("there was no answer", "the model server answered without a choice", "empty", json.dumps(body))
    choice: dict[str, Any] = choices[0]
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    content, refusal, reason = _text(message), message.get("refusal"), choice.get("finish_reason")
    if reason == "content_filter":
        text = "the content filter withheld the script"
        raise Rejected(text, provider=PROVIDER, code="content_filter", evidence=_evidence(content or ""))
    if refusal:
        text = f"the model refused to write the script: {str(refusal)[:300]}"
        raise Rejected(text, provider=PROVIDER, code="refusal", evidence=_evidence(str(refusal)))
    if reason == "length":
        feedback = "it was cut off because it was too long: think less, and keep to the length that was asked for"
        raise _fault(feedback, "the script was cut off at the token limit", "length", content or "")
    if not content:
        raise _malformed("it holds no text", json.dumps(choice))
    return content


def _text(message: dict[str, Any]) -> str | None:
    """The text of a message. Some servers, when a grammar is set, put all of it into the reasoning; then that text."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    for text in (content, message.get("reasoning_content"), message.get("reasoning")):
        if isinstance(text, str) and text.strip():
            return text
    return None


def _cleaned(raw: dict[str, Any], channel: Channel, removed: list[str]) -> dict[str, Any]:
    """The answer with cleaned texts, shortened where that keeps their meaning. Spoken text is never shortened.

    Values of the wrong shape are kept, so that pydantic's validation reports them.
    """
    clean = {name: value for name, value in raw.items() if name in Script.model_fields}

    def cleaned(place: str, value: Any, how: Callable[[str], markup.Plain]) -> Any:
        if not isinstance(value, str):
            return value
        left = how(value)
        removed.extend(f"{place}: {part}" for part in left.removed)
        return left.text

    def fitted(place: str, text: str, most: int) -> str:
        kept = phrases.shortened(text, most, channel.language)
        if kept != text:
            removed.append(f"{place}: {text[len(kept.removesuffix(phrases.ELLIPSIS)) :].strip()[:60]!r} was too long")
        return kept

    def headline(place: str, shown: str, narration: str) -> str:
        """The scene's headline: the model's, else the beginning of its narration, else nothing. It is always a whole phrase."""
        usable = shown if markup.spoken(shown).text else ""  # a text that is only a web address leaves nothing
        for text in (usable, narration):
            if kept := phrases.headline(text, SHOWN_LIMIT, channel.language):
                if kept != shown and shown:
                    removed.append(f"{place}: {shown[:60]!r} shows as {kept[:60]!r}")
                return kept
        removed.extend([f"{place}: {shown[:60]!r}"] if shown else [])
        return ""

    def scene_of(number: int, given: dict[str, Any]) -> dict[str, Any]:
        scene = {name: value for name, value in given.items() if name in Scene.model_fields}
        place = f"scene {number}"
        narration = scene["narration"] = cleaned(place, scene.get("narration"), markup.spoken)
        shown = scene["on_screen_text"] = cleaned(place, scene.get("on_screen_text", ""), markup.plain)
        if isinstance(narration, str) and isinstance(shown, str):
            scene["on_screen_text"] = headline(place, shown, narration)
        return scene

    for name, how in (("hook", markup.spoken), ("title", markup.plain), ("caption", markup.posted)):
        if name in raw:
            clean[name] = cleaned(name, raw[name], how)
    hook = clean.get("hook")
    if isinstance(clean.get("title"), str):
        clean["title"] = phrases.trimmed(clean["title"])
    for name, most in (("title", TITLE_LIMIT), ("caption", CAPTION_LIMIT)):
        if isinstance(clean.get(name), str) and isinstance(hook, str):
            clean[name] = fitted(name, clean[name] or hook, most)
    if isinstance(raw.get("scenes"), list):
        clean["scenes"] = [
            scene_of(number, scene) if isinstance(scene, dict) else scene for number, scene in enumerate(raw["scenes"], start=1)
        ]
    tags = raw.get("hashtags", [])
    if isinstance(tags, str):
        tags = tags.replace(",", " ").split()
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        clean["hashtags"] = normalised([*channel.hashtags, *tags])
        removed.extend(f"hashtags: {markup.one_line(tag)[:60]!r} has no word" for tag in tags if not repaired(tag))
    return clean


def _check_length(script: Script, channel: Channel, content: str) -> None:
    if primary(channel.language) in UNSPACED:
        return
    said, wanted = len(script.text.split()), target_words(channel)
    if not SHORTEST * wanted <= said <= LONGEST * wanted:
        raise _malformed(f"{said} words where about {wanted} were asked for", content)


def _malformed(what: str, content: str) -> FaultyAnswer:
    return _fault(what, f"the model's answer is not a script: {what}", "malformed", content)


def _fault(feedback: str, message: str, code: str, content: str) -> FaultyAnswer:
    return FaultyAnswer(feedback, Permanent(message, provider=PROVIDER, code=code, evidence=_evidence(content)))


def _evidence(text: str) -> Evidence:
    return Evidence(status=200, body=redact(text[: http.BODY_LIMIT]))
