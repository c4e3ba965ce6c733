"""Editing texts: a new revision of what depends on them and nothing else, with the real stages on the real tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest

from phantoms_dagster.domain.claims import StageTask
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import (
    ApprovalOutput,
    Brief,
    Channel,
    Platform,
    Probe,
    RenderedVideoOutput,
    Script,
    ScriptOutput,
    Sentence,
    VariantOutput,
    VoiceoverOutput,
)
from phantoms_dagster.domain.ports import Attempt, FitResult, WrittenScript
from phantoms_dagster.domain.script_edits import ScriptEdit
from phantoms_dagster.production.runner import UseCase
from phantoms_dagster.production.stages.approval import Approve
from phantoms_dagster.production.stages.script import WriteScript
from phantoms_dagster.production.stages.variant import MakeVariant
from phantoms_dagster.production.stages.voiceover import SpeakScript
from phantoms_dagster.store.audit import Actor, AuditLog
from phantoms_dagster.store.decisions import DecidedFirst, Decisions
from phantoms_dagster.store.earlier import EarlierRevisions
from phantoms_dagster.store.stored import output_of
from phantoms_dagster.store.text_edits import TextEdits
from phantoms_dagster_tests.integration.stage_world import PROBE, SCRIPT, World, done, media_file, open_world
from phantoms_dagster_tests.integration.test_render_use_case import Shop, Studio

ANN, BEN = Actor("ann", "desk", "10.0.0.1"), Actor("ben", "desk", "10.0.0.2")
Output = TypeVar("Output")
NEW_CAPTION = ScriptEdit(caption="About the very deep sea.")


class Writer:
    """Writes the same script, and counts."""

    provider = "llm"

    def __init__(self) -> None:
        self.calls = 0

    async def write(self, brief: Brief, channel: Channel, attempt: Attempt) -> WrittenScript:
        self.calls += 1
        return WrittenScript(SCRIPT, "test", None, 1, 1, Decimal("0.01"), sandbox=False)


class Voice:
    """Says what the script says, and remembers."""

    provider = "voice"

    def __init__(self) -> None:
        self.said: list[str] = []

    async def speak(self, script: Script, channel: Channel) -> VoiceoverOutput:
        self.said.append(script.text)
        spoken = [(-1, script.hook), *enumerate(scene.narration for scene in script.scenes)]
        sentences = tuple(Sentence(text=said, scene=n, start=n + 1.0, end=n + 2.0) for n, said in spoken)
        return VoiceoverOutput(audio=media_file(script.text, ".wav"), seconds=20.0, sentences=sentences, voice="test")


class Keeps(Studio):
    """A studio to which every video fits."""

    async def fit(
        self, path: Path, platform: Platform, destination: Callable[[], Path], *, known: Probe | None = None
    ) -> FitResult:
        return FitResult("kept", PROBE)


class House:
    """Everything that makes a video up to its posts, and what it was asked."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.shop = Shop(world, folder)
        self.shop.studio = Keeps()
        self.writer, self.voice = Writer(), Voice()
        self.decisions = Decisions(world.engine)
        self.edits = TextEdits(world.engine, self.decisions)
        self._use_cases: dict[str, UseCase] = {
            "script": WriteScript(self.writer),
            "voiceover": SpeakScript(self.voice),
            "rendered_video": self.shop.use_case(),
            "approval": Approve(self.shop.clock),
            **{f"{platform}/variant": MakeVariant(studio=Keeps(), media=self.shop.media) for platform in Platform.usual()},
        }

    async def make(self, key: str, *stages: str) -> None:
        """Stages of one video, to done."""
        for name in stages:
            store, claim = await self.world.claimed(name, key, owner=f"{name}-{key}-{self.world.row(key, name)['revision']}")
            made = await self._use_cases[name](StageTask(claim, await store.attempt(claim)))
            assert await store.finish(claim, done(made))

    async def rendered(self, **changes: Any) -> str:
        """A video that waits for its reviewer."""
        [key] = self.world.add(**changes)
        await self.make(key, "script", "voiceover", "rendered_video")
        self.world.catalogue.registered([key])
        return key

    async def approved(self, key: str, *platforms: Platform) -> None:
        """A person approves, and the variants are made."""
        self.decisions.decide(key, approved=True, reviewer="kim", via="desk", content_sha256=self.content(key))
        await self.make(key, "approval", *(f"{platform}/variant" for platform in platforms))

    def content(self, key: str) -> str:
        review = self.decisions.review(key)
        assert review is not None
        return review.content

    def output(self, key: str, name: str, kind: type[Output]) -> Output:
        found = output_of(key, name, self.world.row(key, name)["output"])
        assert isinstance(found, kind)
        return found

    def states(self, key: str) -> dict[str, str]:
        return {name: row.state for name, row in self.world.catalogue.stages(key).items()}


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with open_world(database_url) as world:
        yield House(world, tmp_path)


async def test_a_new_caption_makes_no_new_voice_and_no_new_render_and_voids_the_approval(house: House) -> None:
    key = await house.rendered()
    await house.approved(key, Platform("youtube"))
    master = house.output(key, "rendered_video", RenderedVideoOutput)
    edited = house.edits.edit(key, NEW_CAPTION, ANN, content_sha256=house.content(key))
    assert list(edited.differences) == [("caption", "About the sea.", "About the very deep sea.")]
    assert house.states(key) == {
        **dict.fromkeys(("script", "voiceover", "rendered_video"), "done"),
        "approval": "ready",
        "youtube/variant": "blocked",
        "youtube/post": "blocked",
    }
    assert house.world.due("approval") == []
    assert house.decisions.undecided() == [key]
    now = house.output(key, "rendered_video", RenderedVideoOutput)
    assert (now.video, now.thumbnail, now.render_id) == (master.video, master.thumbnail, master.render_id)
    assert now.words[0].caption == "About the very deep sea.\n\n#sea"
    assert now.content_sha256 == house.content(key) != master.content_sha256
    assert house.output(key, "script", ScriptOutput).edited_by == "ann"
    await house.approved(key, Platform("youtube"))
    assert house.output(key, "youtube/variant", VariantOutput).caption == "About the very deep sea.\n\n#sea"
    assert (house.writer.calls, len(house.voice.said), len(house.shop.service.billed)) == (1, 1, 1)


async def test_a_new_sentence_makes_a_new_voice_and_a_new_render_without_asking_the_model(house: House) -> None:
    key = await house.rendered()
    await house.approved(key)
    edited = house.edits.edit(key, ScriptEdit(narration={1: " The sea  is\r\nvery deep. "}), ANN)
    assert edited.remakes == "voiceover"
    assert house.states(key)["voiceover"] == "ready"
    assert {house.states(key)[name] for name in ("rendered_video", "approval", "youtube/variant")} == {"blocked"}
    assert house.world.due("voiceover") == [key]
    assert house.world.due("script") == []
    await house.make(key, "voiceover", "rendered_video")
    assert house.voice.said == ["Did you know? The sea is deep.", "Did you know? The sea is very deep."]
    assert [job.sentences[-1].text for job in house.shop.service.jobs] == ["The sea is deep.", "The sea is very deep."]
    assert house.writer.calls == 1
    assert house.decisions.undecided() == [key]


async def test_a_new_headline_is_rendered_again_with_the_same_voice(house: House) -> None:
    key = await house.rendered()
    assert house.edits.edit(key, ScriptEdit(headlines={1: "Deeper"}), ANN).remakes == "rendered_video"
    assert house.states(key)["voiceover"] == "done"
    await house.make(key, "rendered_video")
    assert [job.scene_titles for job in house.shop.service.jobs] == [("Deep",), ("Deeper",)]
    assert len(house.voice.said) == 1


@pytest.mark.parametrize("edit", [NEW_CAPTION, ScriptEdit(hook="Who knows?")])
async def test_a_post_that_is_out_is_left_alone_and_the_editor_is_told_so(house: House, edit: ScriptEdit) -> None:
    key = await house.rendered(platforms=(Platform("youtube"), Platform("tiktok")))
    await house.approved(key, Platform("youtube"), Platform("tiktok"))
    await house.world.carry([key], "youtube/post")
    before = [dict(house.world.row(key, name)) for name in ("youtube/variant", "youtube/post")]
    edited = house.edits.edit(key, edit, ANN)
    assert edited.notes == ("it is already posted on YouTube, and those posts stay as they are",)
    assert [dict(house.world.row(key, name)) for name in ("youtube/variant", "youtube/post")] == before
    if edited.remakes:
        await house.make(key, "voiceover", "rendered_video")
    await house.approved(key, Platform("tiktok"))
    assert house.states(key)["youtube/post"] == "done"
    assert house.world.due("youtube/post") == []
    assert house.world.due("tiktok/post") == [key]


async def test_a_video_that_is_out_everywhere_or_on_its_way_cannot_be_edited(house: House) -> None:
    key = await house.rendered()
    await house.approved(key, Platform("youtube"))
    store, _ = await house.world.claimed("youtube/post", key)
    with pytest.raises(InvalidInput, match="on its way to YouTube now"):
        house.edits.edit(key, NEW_CAPTION, ANN)
    await store.release("runner")
    await house.world.carry([key], "youtube/post")
    with pytest.raises(InvalidInput, match="cannot be edited any more: it is already posted on YouTube"):
        house.edits.edit(key, NEW_CAPTION, ANN)
    assert house.output(key, "script", ScriptOutput).script == SCRIPT


@pytest.mark.parametrize("ledger", ["opened", "uploading", "committing", "unknown", "handed_over", "published"])
async def test_a_post_that_was_begun_keeps_its_words(house: House, ledger: str) -> None:
    key = await house.rendered()
    await house.approved(key, Platform("youtube"))
    house.world.write(
        """INSERT INTO phantoms.posts (video_id, platform, account, marker, state, video_sha256, caption_sha256)
        SELECT id, 'youtube', 'a', 'm', :state, 'x', 'x' FROM phantoms.videos WHERE key = :key""",
        state=ledger,
        key=key,
    )
    with pytest.raises(InvalidInput, match="on its way to YouTube"):
        house.edits.edit(key, NEW_CAPTION, ANN)


async def test_of_two_people_who_edit_at_once_one_wins_and_the_other_is_told_who(house: House) -> None:
    key = await house.rendered()
    looked_at = house.content(key)

    def edit(actor: Actor) -> str:
        try:
            return str(
                list(house.edits.edit(key, ScriptEdit(caption=f"By {actor.name}."), actor, content_sha256=looked_at).differences)
            )
        except DecidedFirst as error:
            return str(error)

    said = await asyncio.gather(asyncio.to_thread(edit, ANN), asyncio.to_thread(edit, BEN))
    winner = house.output(key, "script", ScriptOutput)
    assert winner.script.caption == f"By {winner.edited_by}."
    [told] = [text for text in said if "not what you looked at" in text]
    assert f"{winner.edited_by} changed its texts meanwhile" in told
    assert len(AuditLog(house.world.engine).page(subject=key)) == 1


async def test_who_edits_after_a_new_sentence_hears_that_it_is_being_made(house: House) -> None:
    key = await house.rendered()
    looked_at = house.content(key)
    house.edits.edit(key, ScriptEdit(hook="Who knows?"), ANN, content_sha256=looked_at)
    with pytest.raises(DecidedFirst, match=r"ann changed the texts of .* first: it is made again"):
        house.edits.edit(key, NEW_CAPTION, BEN, content_sha256=looked_at)


async def test_an_approval_of_the_old_words_does_not_count_for_the_new_ones_nor_for_the_old_ones_again(house: House) -> None:
    key = await house.rendered()
    looked_at = house.content(key)
    house.decisions.decide(key, approved=True, reviewer="kim", via="desk", content_sha256=looked_at)
    house.edits.edit(key, NEW_CAPTION, ANN)
    assert house.world.due("approval") == []
    with pytest.raises(InvalidInput, match="is not what was looked at"):
        house.decisions.decide(key, approved=True, reviewer="kim", via="desk", content_sha256=looked_at)
    house.edits.edit(key, ScriptEdit(caption=SCRIPT.caption), ANN)
    assert house.content(key) == looked_at
    assert house.world.due("approval") == []
    assert house.decisions.undecided() == [key]


async def test_a_run_that_carries_out_the_approval_is_fenced_off(house: House) -> None:
    key = await house.rendered()
    house.decisions.decide(key, approved=True, reviewer="kim", via="desk", content_sha256=house.content(key))
    store, claim = await house.world.claimed("approval", key)
    made = await Approve(house.shop.clock)(StageTask(claim, await store.attempt(claim)))
    house.edits.edit(key, NEW_CAPTION, ANN)
    assert not await store.finish(claim, done(made))
    assert house.states(key)["approval"] == "ready"


async def test_a_rejected_video_comes_back_into_the_queue_when_its_words_were_corrected(house: House) -> None:
    key = await house.rendered()
    house.world.write("UPDATE phantoms.stages SET state = 'rejected', reason = 'wrong' WHERE stage = 'approval'")
    house.edits.edit(key, NEW_CAPTION, ANN)
    assert house.decisions.undecided() == [key]
    await house.approved(key)
    assert house.output(key, "approval", ApprovalOutput).words[0].caption.startswith("About the very deep sea.")


async def test_an_edit_that_changes_nothing_voids_nothing(house: House) -> None:
    key = await house.rendered()
    await house.approved(key)
    edited = house.edits.edit(
        key, ScriptEdit(title=" The  sea ", caption="About the sea.\r\n", hashtags="sea", hook="Did you know?"), ANN
    )
    assert list(edited.differences) == []
    assert house.states(key)["approval"] == "done"
    assert house.world.row(key, "script")["revision"] == 1


async def test_every_mistake_is_named_and_nothing_is_changed(house: House) -> None:
    key = await house.rendered()
    edit = ScriptEdit(title="", caption="x" * 1501, hashtags="#a-b fine", hook="!?", narration={2: "No."}, headlines={1: "\x07"})
    with pytest.raises(InvalidInput) as caught:
        house.edits.edit(key, edit, ANN)
    for said in (
        "there is no scene 2; the script has 1",
        "title is empty",
        "caption has 1501 characters, and 1500 is the most",
        "'#a-b' has a character that ends a hashtag in it; write '#ab'",
        "hook has no word that can be spoken",
        "headline of scene 1 contains the control character U+0007",
    ):
        assert said in str(caught.value)
    assert house.output(key, "script", ScriptOutput).script == SCRIPT


async def test_words_that_the_channel_bans_and_hashtags_without_room_are_said(house: House) -> None:
    key = await house.rendered(platforms=(Platform("instagram"),))
    edited = house.edits.edit(key, ScriptEdit(hashtags="a1 b2, c3 d4 e5 f6"), ANN)
    assert edited.notes == ("no room on Instagram for #f6",)
    house.world.write("""UPDATE phantoms.channels SET config = config || '{"banned_words": ["deep"]}'""")
    with pytest.raises(InvalidInput, match="facts bans these words: deep"):
        house.edits.edit(key, NEW_CAPTION, ANN)


async def test_the_edit_is_in_the_log_and_the_replaced_revisions_are_kept(house: House) -> None:
    key = await house.rendered()
    house.edits.edit(key, NEW_CAPTION, ANN)
    house.edits.edit(key, ScriptEdit(hook="Who knows?"), BEN)
    await house.make(key, "voiceover", "rendered_video")
    newest, oldest = AuditLog(house.world.engine).page(subject=key)
    assert (oldest.who, oldest.action, oldest.address) == ("ann", "edit texts", "10.0.0.1")
    assert (oldest.before, oldest.after) == ({"caption": "About the sea."}, {"caption": "About the very deep sea."})
    assert newest.before == {"hook": "Did you know?"}
    earlier = EarlierRevisions(house.world.engine).of(key, before=house.world.row(key, "rendered_video")["revision"])
    assert [(one.revision, one.script.script.caption, one.script.script.hook) for one in earlier] == [
        (2, "About the very deep sea.", "Did you know?"),
        (1, "About the sea.", "Did you know?"),
    ]
    assert earlier[0].master.video == earlier[1].master.video == media_file("r1")
