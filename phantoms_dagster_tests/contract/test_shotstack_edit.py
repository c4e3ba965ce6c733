"""The Edit that Shotstack gets: valid against its own schema, faithful to the job, and readable again."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phantoms_dagster.domain.models import Palette, Sentence
from phantoms_dagster.domain.ports import RenderJob
from phantoms_dagster.providers.shotstack.edit import CAPTION_CELLS, build_edit, job_from_edit
from phantoms_dagster.sandbox.shotstack.schema import problem
from phantoms_dagster_tests.vendor_specs import FOLDER, published

AUDIO = Path("voiceover.wav")
AUDIO_URL = "https://sources.example/1/source.wav"
JOB = RenderJob(
    video_key="20261122-ocean-facts-7f3a",
    attempt_id="rendered-video-7f3a-1",
    title="Three facts about the ocean",
    hook="You have never seen 95% of the ocean. Nobody has!",
    scene_titles=("Deep & dark", "Under pressure", "海の底"),
    sentences=(
        Sentence(text="You have never seen 95% of the ocean.", scene=-1, start=0.0, end=2.4),
        Sentence(text="Nobody has!", scene=-1, start=2.4, end=3.1),
        Sentence(text="Below two hundred metres it is night, all day long.", scene=0, start=3.25, end=6.8),
        Sentence(text="Supercalifragilisticexpialidocious creatures glow there.", scene=0, start=6.8, end=9.333),
        Sentence(text="The water weighs on them like an elephant on a thumb.", scene=1, start=9.5, end=13.0),
        Sentence(text="海の底では光が届かないので生き物は自分で光ります。", scene=2, start=13.1, end=17.75),
    ),
    seconds=18.25,
    audio=AUDIO,
    palette=Palette(background=("#012a4a", "#2a6f97"), text="#fefae0", accent="#ffb703"),
    channel_title="Tiny Ocean",
)


def clips_of(edit: dict[str, Any], prefix: str) -> list[dict[str, Any]]:
    return [c for track in edit["timeline"]["tracks"] for c in track["clips"] if c["alias"].startswith(prefix)]


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_job_comes_back_from_its_edit_unchanged() -> None:
    edit = json.loads(json.dumps(build_edit(JOB, AUDIO_URL)))
    assert job_from_edit(edit, AUDIO) == JOB


text_strategy = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=120).filter(str.strip)
colours = st.from_regex(r"#[0-9a-f]{6}", fullmatch=True)


@st.composite
def jobs(draw: st.DrawFn) -> RenderJob:
    sentences, at = [], 0.0
    scenes = draw(st.integers(0, 4))
    for scene in range(-1, scenes):
        for _ in range(draw(st.integers(1, 2))):
            end = at + draw(st.integers(40, 6_000)) / 1_000
            sentences.append(Sentence(text=words(draw(text_strategy)), scene=scene, start=round(at, 3), end=round(end, 3)))
            at = round(end + draw(st.integers(0, 400)) / 1_000, 3)
    return RenderJob(
        video_key=draw(text_strategy),
        attempt_id=draw(st.from_regex(r"[a-z0-9-]{1,64}", fullmatch=True)),
        title=draw(text_strategy),
        hook=draw(text_strategy),
        scene_titles=tuple(draw(text_strategy) for _ in range(scenes)),
        sentences=tuple(sentences),
        seconds=round(at + 0.5, 3),
        audio=AUDIO,
        palette=Palette(background=(draw(colours), draw(colours)), text=draw(colours), accent=draw(colours)),
        channel_title=draw(st.just("") | text_strategy),
        language=draw(st.sampled_from(["", "en", "tr", "zh-Hant"])),
    )


@given(jobs())
@settings(max_examples=60, deadline=None)
def test_any_job_comes_back_from_its_edit_and_the_edit_is_accepted(job: RenderJob) -> None:
    edit = json.loads(json.dumps(build_edit(job, AUDIO_URL)))
    assert problem(edit) is None
    back = job_from_edit(edit, AUDIO)
    spoken = [tuple(s for s in each.sentences if any(map(str.isalnum, s.text))) for each in (back, job)]
    assert replace(back, sentences=spoken[0]) == replace(job, sentences=spoken[1])


def test_captions_that_do_not_say_what_was_written_are_believed() -> None:
    edit = json.loads(json.dumps(build_edit(JOB, AUDIO_URL)))
    clips_of(edit, "caption-1-")[0]["asset"]["text"] = "Somebody has!"
    assert job_from_edit(edit, AUDIO).sentences[1].text == "Somebody has!"


def test_a_scene_without_a_headline_has_no_clip_and_comes_back() -> None:
    job = replace(JOB, scene_titles=("Deep & dark", "", ""))
    edit = build_edit(job, AUDIO_URL)
    assert [clip["alias"] for clip in clips_of(edit, "scene-")] == ["scene-0"]
    assert job_from_edit(json.loads(json.dumps(edit)), AUDIO) == job


def test_a_long_headline_is_set_smaller() -> None:
    long = replace(
        JOB, scene_titles=("Two of an octopus's hearts pump blood through the gills, and the third sends it on", "A", "海の底" * 15)
    )
    sizes = [clip["asset"]["font"]["size"] for clip in clips_of(build_edit(long, AUDIO_URL), "scene-")]
    assert sizes[1] == 60
    assert 30 <= sizes[0] < 60
    assert 30 <= sizes[2] < 60


def test_a_video_without_a_name_has_no_clip_of_the_channel() -> None:
    assert clips_of(build_edit(JOB, AUDIO_URL), "channel")
    assert clips_of(build_edit(dataclasses.replace(JOB, channel_title=""), AUDIO_URL), "channel") == []


def test_captions_follow_one_another_within_their_sentence_and_longer_chunks_stand_longer() -> None:
    for number, sentence in enumerate(JOB.sentences):
        clips = clips_of(build_edit(JOB, AUDIO_URL), f"caption-{number}-")
        assert clips[0]["start"] == sentence.start
        for before, after in itertools.pairwise(clips):
            assert before["start"] + before["length"] == pytest.approx(after["start"], abs=1e-6)
        assert clips[-1]["start"] + clips[-1]["length"] == pytest.approx(sentence.end, abs=1e-6)
    first = clips_of(build_edit(JOB, AUDIO_URL), "caption-2-")
    longest, shortest = (pick(first, key=lambda c: len(c["asset"]["text"])) for pick in (max, min))
    assert longest["length"] > shortest["length"]


def test_captions_are_short_and_a_sentence_without_spaces_is_cut() -> None:
    captions = [clip["asset"]["text"] for clip in clips_of(build_edit(JOB, AUDIO_URL), "caption-")]
    assert all(len(text) <= CAPTION_CELLS for text in captions)
    japanese = [clip["asset"]["text"] for clip in clips_of(build_edit(JOB, AUDIO_URL), "caption-5-")]
    assert len(japanese) > 1
    assert "".join(japanese) == JOB.sentences[5].text


def test_the_layers_lie_in_order_and_nothing_is_hosted_elsewhere_but_the_voiceover() -> None:
    edit: Any = build_edit(JOB, AUDIO_URL)
    tops = [track["clips"][0]["alias"].split("-")[0] for track in edit["timeline"]["tracks"]]
    assert tops == ["progress", "scene", "caption", "hook", "channel", "background", "voiceover"]
    assert json.dumps(edit).count("http") == 1
    assert edit["output"] == {"format": "mp4", "size": {"width": 1080, "height": 1920}, "fps": 30, "quality": "high"}


def test_a_scene_title_is_shown_until_the_next_scene_and_the_last_until_its_last_word() -> None:
    first, second, third = clips_of(build_edit(JOB, AUDIO_URL), "scene-")
    assert (first["start"], first["length"]) == (3.25, 6.25)
    assert second["start"] + second["length"] == pytest.approx(third["start"])
    assert third["start"] + third["length"] == pytest.approx(17.75)


def test_the_hook_is_shown_while_it_is_spoken_or_for_a_moment_if_its_length_is_unknown() -> None:
    assert clips_of(build_edit(JOB, AUDIO_URL), "hook")[0]["length"] == 3.1
    silent = replace(JOB, sentences=JOB.sentences[4:])
    assert clips_of(build_edit(silent, AUDIO_URL), "hook")[0]["length"] == 3.0


def test_an_edit_made_by_another_program_is_refused() -> None:
    edit = build_edit(JOB, AUDIO_URL)
    del edit["merge"]
    with pytest.raises(ValueError, match="not made from a render job"):
        job_from_edit(edit, AUDIO)


# --- against the official schema --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official() -> jsonschema.Draft202012Validator:
    schema = published("shotstack.edit.schema.json")
    if schema is None:
        pytest.skip(f"{FOLDER} does not name a folder with shotstack.edit.schema.json")
    return jsonschema.Draft202012Validator(schema)


def test_the_edit_is_valid_by_the_official_schema(official: jsonschema.Draft202012Validator) -> None:
    official.validate(build_edit(JOB, AUDIO_URL))


def _clip(edit: dict[str, Any], alias: str) -> dict[str, Any]:
    return clips_of(edit, alias)[0]


MUTATIONS: dict[str, Callable[[dict[str, Any]], object]] = {
    "nothing": lambda e: None,
    "stray key at the top": lambda e: e.update(extra=1),
    "stray key in timeline": lambda e: e["timeline"].update(extra=1),
    "stray key in track": lambda e: e["timeline"]["tracks"][0].update(extra=1),
    "stray key in clip": lambda e: _clip(e, "hook").update(extra=1),
    "stray key in asset": lambda e: _clip(e, "hook")["asset"].update(extra=1),
    "stray key in font": lambda e: _clip(e, "hook")["asset"]["font"].update(extra=1),
    "stray key in fill": lambda e: _clip(e, "progress")["asset"]["fill"].update(extra=1),
    "stray key in tween": lambda e: _clip(e, "progress")["offset"]["x"][0].update(extra=1),
    "stray key in merge": lambda e: e["merge"][0].update(extra=1),
    "stray key in output": lambda e: e["output"].update(extra=1),
    "no timeline": lambda e: e.pop("timeline"),
    "no output": lambda e: e.pop("output"),
    "no tracks": lambda e: e["timeline"].pop("tracks"),
    "empty tracks": lambda e: e["timeline"].update(tracks=[]),
    "empty clips": lambda e: e["timeline"]["tracks"][0].update(clips=[]),
    "no asset": lambda e: _clip(e, "hook").pop("asset"),
    "no start": lambda e: _clip(e, "hook").pop("start"),
    "no length": lambda e: _clip(e, "hook").pop("length"),
    "negative start": lambda e: _clip(e, "hook").update(start=-1),
    "start in words": lambda e: _clip(e, "hook").update(start="auto"),
    "start in other words": lambda e: _clip(e, "hook").update(start="soon"),
    "length to the end": lambda e: _clip(e, "hook").update(length="end"),
    "unknown asset": lambda e: _clip(e, "hook")["asset"].update(type="hologram"),
    "no type": lambda e: _clip(e, "hook")["asset"].pop("type"),
    "no text": lambda e: _clip(e, "hook")["asset"].pop("text"),
    "endless text": lambda e: _clip(e, "hook")["asset"].update(text="x" * 5001),
    "huge font": lambda e: _clip(e, "hook")["asset"]["font"].update(size=501),
    "broken font size": lambda e: _clip(e, "hook")["asset"]["font"].update(size=20.5),
    "named colour": lambda e: _clip(e, "hook")["asset"]["font"].update(color="red"),
    "too opaque": lambda e: _clip(e, "hook")["asset"]["font"].update(opacity=1.1),
    "unknown animation": lambda e: _clip(e, "hook")["asset"]["animation"].update(preset="explode"),
    "unknown transition": lambda e: _clip(e, "hook")["transition"].update({"in": "explode"}),
    "slow transition": lambda e: _clip(e, "hook")["transition"].update({"in": "shuffleTopRightSlow"}),
    "unknown position": lambda e: _clip(e, "hook").update(position="middle"),
    "far offset": lambda e: _clip(e, "hook")["offset"].update(y=11),
    "tall clip": lambda e: _clip(e, "background").update(height=2161),
    "bad alias": lambda e: _clip(e, "hook").update(alias="the hook"),
    "loud audio": lambda e: _clip(e, "voiceover")["asset"].update(volume=2),
    "fading audio": lambda e: _clip(e, "voiceover")["asset"].update(volume=[{"from": 0, "to": 1, "start": 0, "length": 1}]),
    "blank audio": lambda e: _clip(e, "voiceover")["asset"].update(src=" "),
    "number as source": lambda e: _clip(e, "voiceover")["asset"].update(src=5),
    "no html": lambda e: _clip(e, "background")["asset"].pop("html"),
    "unknown shape": lambda e: _clip(e, "progress")["asset"].update(shape="star"),
    "shape without height": lambda e: _clip(e, "progress")["asset"]["rectangle"].pop("height"),
    "no format": lambda e: e["output"].pop("format"),
    "unknown format": lambda e: e["output"].update(format="avi"),
    "unknown fps": lambda e: e["output"].update(fps=31),
    "fps in words": lambda e: e["output"].update(fps="30"),
    "huge size": lambda e: e["output"]["size"].update(width=4098),
    "unknown quality": lambda e: e["output"].update(quality="best"),
    "merge without replace": lambda e: e["merge"][0].pop("replace"),
    "merge with a number": lambda e: e["merge"][0].update(replace=5),
    "callback": lambda e: e.update(callback="https://example.com/hook"),
    "callback no text": lambda e: e.update(callback=7),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_sandbox_accepts_what_the_official_schema_accepts_and_refuses_what_it_refuses(
    official: jsonschema.Draft202012Validator, name: str
) -> None:
    edit = copy.deepcopy(json.loads(json.dumps(build_edit(JOB, AUDIO_URL))))
    MUTATIONS[name](edit)
    assert (problem(edit) is None) == official.is_valid(edit)
