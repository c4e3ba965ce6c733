"""A person's edits to the script of a video, as values. `store.text_edits` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.hashtags import Hashtag, unique
from phantoms_dagster.domain.models import Channel, Platform, Scene, Script
from phantoms_dagster.domain.text import nfc, speakable, unfit

# The limits of `Script`: characters, and the number of hashtags.
TITLE, CAPTION, HASHTAGS, HOOK, NARRATION, HEADLINE = 100, 1_500, 15, 200, 600, 110
_BETWEEN = re.compile(r"[\s,;]+")


@dataclass(frozen=True)
class ScriptEdit:
    """New texts of a script, as a person typed them; None keeps the old one. `hashtags` are separated by spaces or commas.

    `narration` and `headlines`: by the number of the scene, from 1. Scenes cannot be added or removed.
    """

    title: str | None = None
    caption: str | None = None
    hashtags: str | None = None
    hook: str | None = None
    narration: Mapping[int, str] = field(default_factory=dict)
    headlines: Mapping[int, str] = field(default_factory=dict)

    def applied_to(self, script: Script, channel: Channel) -> Script:
        """The script with these texts. Raises InvalidInput, which lists all problems."""
        problems: list[str] = []
        strange = sorted({*self.narration, *self.headlines} - set(range(1, len(script.scenes) + 1)))
        if strange:
            problems.append(f"there is no scene {strange[0]}; the script has {len(script.scenes)}")

        def line(place: str, typed: str | None, old: str, most: int, *, needed: bool = True, spoken: bool = False) -> str:
            if typed is None or (text := _line(typed)) == old:
                return old
            problems.extend(_problems(place, text, most, needed=needed, spoken=spoken))
            return text

        title = line("title", self.title, script.title, TITLE)
        caption = script.caption
        if self.caption is not None and (typed := _paragraphs(self.caption)) != script.caption:
            caption = typed
            problems.extend(_problems("caption", caption, CAPTION))
        hashtags = script.hashtags if self.hashtags is None else _hashtags(self.hashtags, problems)
        hook = line("hook", self.hook, script.hook, HOOK, spoken=True)
        scenes = []
        for number, scene in enumerate(script.scenes, start=1):
            place = f"scene {number}"
            said = line(place, self.narration.get(number), scene.narration, NARRATION, spoken=True)
            shown = line(f"headline of {place}", self.headlines.get(number), scene.on_screen_text, HEADLINE, needed=False)
            scenes.append((said, shown))
        texts = [title, caption, *hashtags, hook, *(text for scene in scenes for text in scene)]
        if banned := channel.banned_in(" \n ".join(texts)):
            problems.append(f"{channel.name} bans these words: {', '.join(banned)}")
        if problems:
            raise InvalidInput("; ".join(problems))
        changed = tuple(Scene(narration=said, on_screen_text=shown) for said, shown in scenes)
        return Script(hook=hook, scenes=changed, title=title, caption=caption, hashtags=hashtags)


@dataclass(frozen=True)
class EditedTexts:
    """The texts of a video before and after an edit. `notes`: what the person should know."""

    key: str
    before: Script
    after: Script
    notes: tuple[str, ...] = ()

    @property
    def differences(self) -> Iterator[tuple[str, str, str]]:
        """Yield (name, old text, new text) for each text that changed."""
        old, new = dict(named_texts(self.before)), dict(named_texts(self.after))
        for name, text in new.items():
            if old.get(name) != text:
                yield name, old.get(name, ""), text

    @property
    def remakes(self) -> str | None:
        """The first stage that must be made again; None when only the words of the posts changed."""
        return first_stage_to_remake(self.before, self.after)


def named_texts(script: Script) -> Iterator[tuple[str, str]]:
    """Yield (name, text) for every text of a script, in reading order."""
    yield "title", script.title
    yield "caption", script.caption
    yield "hashtags", " ".join(script.hashtags)
    yield "hook", script.hook
    for number, scene in enumerate(script.scenes, start=1):
        yield f"scene {number}", scene.narration
        yield f"headline of scene {number}", scene.on_screen_text


def first_stage_to_remake(before: Script, after: Script) -> str | None:
    """The first stage that must be made again: `voiceover` when spoken text changed, `rendered_video` when only headlines did."""
    if [before.hook, *(scene.narration for scene in before.scenes)] != [after.hook, *(scene.narration for scene in after.scenes)]:
        return "voiceover"
    if before.scenes != after.scenes:
        return "rendered_video"
    return None


def already_posted(platforms: list[Platform]) -> str:
    """Tell the person that the edit does not change posts on these platforms."""
    names = [platform.title for platform in platforms]
    where = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return f"it is already posted on {where}, and those posts stay as they are"


def _line(text: str) -> str:
    return " ".join(nfc(text).split())


def _paragraphs(text: str) -> str:
    """Normalize a caption and keep its line breaks. HTML forms send them as CR LF."""
    return "\n".join(line.rstrip() for line in nfc(text).replace("\r\n", "\n").replace("\r", "\n").split("\n")).strip()


def _problems(place: str, text: str, most: int, *, needed: bool = True, spoken: bool = False) -> Iterator[str]:
    if needed and not text:
        yield f"{place} is empty"
    elif len(text) > most:
        yield f"{place} has {len(text)} characters, and {most} is the most"
    if (unseen := unfit(text)) is not None:
        yield f"{place} {unseen}"
    elif spoken and text and not speakable(text):
        yield f"{place} has no word that can be spoken"


def _hashtags(typed: str, problems: list[str]) -> tuple[Hashtag, ...]:
    found: list[Hashtag] = []
    for word in filter(None, _BETWEEN.split(typed)):
        try:
            found.append(Hashtag(word))
        except ValueError as error:
            problems.append(f"hashtags: {error}")
    tags = unique(found)
    if len(tags) > HASHTAGS:
        problems.append(f"there are {len(tags)} hashtags, and {HASHTAGS} is the most")
    return tags
