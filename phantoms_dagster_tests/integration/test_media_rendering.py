"""The real voice and the real ffmpeg: one short script is spoken and rendered once, and many tests check the result."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import pytest_asyncio

from phantoms_dagster.domain.errors import Permanent, Transient
from phantoms_dagster.domain.models import Channel, Platform, Scene, Script, VoiceoverOutput
from phantoms_dagster.domain.paid_job import NotBilled
from phantoms_dagster.domain.ports import FitResult, RenderJob
from phantoms_dagster.domain.publication import Found, RemoteId
from phantoms_dagster.media import ass, cards, ffmpeg, graph, local_renderer, waveform
from phantoms_dagster.media.files import FolderStore
from phantoms_dagster.media.fonts import load_fonts
from phantoms_dagster.media.frames import best_frame, headlines
from phantoms_dagster.media.local_renderer import LocalRenderer
from phantoms_dagster.media.mp4 import read_boxes
from phantoms_dagster.media.studio import FfmpegStudio, _read
from phantoms_dagster.media.voice import NeuralVoice

CHANNEL = Channel(name="ocean", title="Ocean {Facts}", brand_voice="calm", accounts={Platform("youtube"): "a"})
SCRIPT = Script(
    hook="Three hearts! Really.",
    scenes=(Scene(narration="Two of them stop. 🎉", on_screen_text="Two \\N stop"),),
    title="Octopus hearts",
    caption="c",
    hashtags=(),
)


@dataclass(frozen=True)
class Made:
    store: FolderStore
    voiceover: VoiceoverOutput
    job: RenderJob
    renderer: LocalRenderer
    master: Path


def _job(voiceover: VoiceoverOutput, audio: Path) -> RenderJob:
    return RenderJob(
        video_key="k",
        attempt_id="attempt-1",
        title=SCRIPT.title,
        hook=SCRIPT.hook,
        scene_titles=tuple(scene.on_screen_text for scene in SCRIPT.scenes),
        sentences=voiceover.sentences,
        seconds=voiceover.seconds,
        audio=audio,
        palette=CHANNEL.palette,
        channel_title=CHANNEL.title,
    )


async def _free() -> None:
    """The ledger's save before the render. Nothing is billed here."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Made]:
    # Filter graphs are full of commas, quotes, colons and brackets; `%03d` is a number in the name of a picture.
    folder = tmp_path_factory.mktemp("it's, [here]: 100%03d\\ *?;=é")
    store = FolderStore(folder / "media")
    voiceover = await NeuralVoice(store).speak(SCRIPT, CHANNEL)
    job = _job(voiceover, await store.local(voiceover.audio))
    renderer = LocalRenderer(folder / "work")
    assert isinstance(await renderer.find("attempt-1"), NotBilled)
    assert (await renderer.status("attempt-1")).state == "failed"
    submitted = await renderer.submit(job, _free)
    assert isinstance(submitted, RemoteId)
    render_id = submitted.id
    await renderer.fetch(render_id, folder / "master.mp4")
    yield Made(store, voiceover, job, renderer, folder / "master.mp4")


def _ffmpeg_children(parent: int | None = None) -> list[str]:
    """The process ids of the ffmpegs that this process, or `parent`, has started."""
    command = ["ps", "--ppid", str(parent or os.getpid()), "-o", "pid=,comm="]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line.split()[0] for line in listed.stdout.splitlines() if "ffmpeg" in line]


# --- the voice ------------------------------------------------------------------------------------------------------


async def test_each_sentence_is_heard_exactly_between_its_start_and_end(made: Made) -> None:
    samples, rate = waveform.read_wav(made.job.audio)
    sentences = made.voiceover.sentences
    assert [(s.scene, s.text) for s in sentences] == [(-1, "Three hearts!"), (-1, "Really."), (0, "Two of them stop. 🎉")]
    assert made.voiceover.seconds == len(samples) / rate
    silent = np.ones(len(samples), dtype=bool)
    for sentence in sentences:
        first, last = round(sentence.start * rate), round(sentence.end * rate)
        silent[first:last] = False
        assert np.abs(samples[first : first + rate // 10]).max() > 0.005, "speech begins where the sentence begins"
    assert not samples[silent].any(), "between sentences nothing is heard"


async def test_the_same_script_is_spoken_with_the_same_bytes(made: Made) -> None:
    again = await NeuralVoice(made.store).speak(SCRIPT, CHANNEL)
    assert again == made.voiceover


async def test_the_event_loop_stays_free_while_the_voice_speaks(made: Made) -> None:
    speaking = [asyncio.ensure_future(NeuralVoice(made.store).speak(SCRIPT, CHANNEL)) for _ in range(3)]
    turns = 0
    while not all(task.done() for task in speaking):
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 10
    assert len({(await task).audio for task in speaking}) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [({"voice": "hal9000"}, "default, heart"), ({"language": "de"}, "only English")],
)
async def test_a_voice_that_does_not_exist_is_refused_with_what_there_is(made: Made, change: dict[str, str], words: str) -> None:
    with pytest.raises(Permanent, match=words):
        await NeuralVoice(made.store).speak(SCRIPT, CHANNEL.model_copy(update=change))


async def test_a_sentence_is_spoken_whole_and_one_without_sound_is_shown_in_silence_and_named(made: Made) -> None:
    narration = "He met No. 5 in the U.S. Army. 水。 The word 水 means water. 5*4 = 20."
    script = SCRIPT.model_copy(update={"hook": "1984!", "scenes": (Scene(narration=narration, on_screen_text="x"),)})
    voiceover = await NeuralVoice(made.store).speak(script, CHANNEL)
    texts = [sentence.text for sentence in voiceover.sentences]
    assert texts == ["1984!", "He met No. 5 in the U.S. Army.", "水。", "The word 水 means water.", "5*4 = 20."]
    assert voiceover.unspoken == ("水。", "水")
    samples, rate = waveform.read_wav(await made.store.local(voiceover.audio))
    hook, _, silent, *_ = voiceover.sentences
    assert np.abs(samples[round(hook.start * rate) : round(hook.end * rate)]).max() > 0.1, "a number is spoken"
    assert silent.end - silent.start > 0.5
    assert not samples[round(silent.start * rate) : round(silent.end * rate)].any()


async def test_a_hook_without_a_word_is_shown_in_silence_and_named(made: Made) -> None:
    voiceover = await NeuralVoice(made.store).speak(SCRIPT.model_copy(update={"hook": "🐙🐙"}), CHANNEL)
    assert (voiceover.sentences[0].scene, voiceover.sentences[0].text) == (-1, "🐙🐙")
    assert voiceover.unspoken == ("🐙🐙",)


async def test_a_script_without_a_word_is_refused(made: Made) -> None:
    silent = SCRIPT.model_copy(update={"hook": "🎉", "scenes": (Scene(narration="✨", on_screen_text="x"),)})
    with pytest.raises(Permanent, match="no word"):
        await NeuralVoice(made.store).speak(silent, CHANNEL)


# --- the master -----------------------------------------------------------------------------------------------------


async def test_the_master_is_what_every_platform_wants(made: Made) -> None:
    probe = await FfmpegStudio().probe(made.master, loudness=True)
    assert (probe.width, probe.height, probe.fps) == (1080, 1920, 30.0)
    assert (probe.container, probe.video_codec, probe.video_profile, probe.pixel_format) == ("mp4", "h264", "High", "yuv420p")
    assert (probe.audio_codec, probe.audio_hz, probe.audio_channels) == ("aac", 48_000, 2)
    assert probe.seconds == pytest.approx(made.voiceover.seconds, abs=0.05)
    assert probe.moov_first
    assert not read_boxes(made.master).edited
    assert b"elst" not in made.master.read_bytes()[:200_000]
    assert probe.loudness_lufs == pytest.approx(graph.TARGET_LUFS, abs=1.0)
    for platform in Platform.usual():
        fitted = await FfmpegStudio().fit(made.master, platform, _never)
        assert (fitted.how, fitted.probe) == ("kept", await FfmpegStudio().probe(made.master))
    assert not made.master.with_name("never.mp4").exists()


def exact(frame: av.VideoFrame) -> Fraction:
    """The time at which a frame is shown, in seconds."""
    assert frame.pts is not None
    assert frame.time_base is not None
    return frame.pts * frame.time_base


async def test_frames_are_evenly_spaced_in_closed_groups_of_sixty_and_tagged_bt709(made: Made) -> None:
    with av.open(str(made.master)) as container:
        stream = container.streams.video[0]
        frames = [(exact(frame), frame.key_frame) for frame in container.decode(stream)]
        context = stream.codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
    assert [round(float(at) * 30, 6) for at, _ in frames] == list(range(len(frames)))
    assert [index for index, (_, key) in enumerate(frames) if key] == list(range(0, len(frames), 60))


async def test_sound_and_picture_are_in_step(made: Made) -> None:
    """Without an edit list the encoder's priming would be heard as a delay of 21 ms."""
    resampler, decoded = av.AudioResampler("flt", "mono", 24_000), []
    with av.open(str(made.master)) as container:
        for frame in container.decode(audio=0):
            decoded += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    voice, _ = waveform.read_wav(made.job.audio)
    heard, spoken = (np.abs(x) for x in (np.concatenate(decoded), voice))
    heard, spoken = (
        np.convolve(x, np.ones(240) / 240, "same")[::24] for x in (heard, spoken)
    )  # envelopes, one value a millisecond
    size = min(len(heard), len(spoken)) - 80
    match = [float(np.dot(heard[40 + lag : 40 + lag + size], spoken[40 : 40 + size])) for lag in range(-40, 41)]
    assert abs(int(np.argmax(match)) - 40) <= 8


async def test_the_picture_shows_captions_in_the_accent_colour_and_moves(made: Made) -> None:
    word = made.voiceover.sentences[-1]
    frames = {}
    with av.open(str(made.master)) as container:
        for frame in container.decode(video=0):
            at = round(float(exact(frame)), 2)
            if at in (0.5, round(round((word.start + word.end) / 2 * 30) / 30, 2)):
                frames[at] = frame.to_ndarray(format="rgb24").astype(int)
    early, late = (frames[at] for at in sorted(frames))
    accent = np.abs(late[1000:1250] - np.array(ass.channels(CHANNEL.palette.accent))).sum(axis=2) < 60
    assert accent.sum() > 2_000
    assert np.abs(late[1550:] - early[1550:]).mean() > 0.3, "the background moves"
    assert late[1550:].std() > 5, "and is no flat colour"


async def test_a_second_submission_of_an_attempt_renders_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(local_renderer, "render", never)
    assert await made.renderer.submit(made.job, _free) == RemoteId("attempt-1")
    assert await made.renderer.find("attempt-1") == Found(RemoteId("attempt-1"))
    status = await made.renderer.status("attempt-1")
    assert status.state == "done"
    assert status.cost == 0


async def test_ids_that_could_leave_the_folder_or_name_nothing_are_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(Permanent):
        await made.renderer.status("../../etc/passwd")
    with pytest.raises(Permanent, match="no finished render"):
        await made.renderer.fetch("attempt-2", tmp_path / "x.mp4")


async def test_a_cancelled_render_leaves_no_ffmpeg_and_no_file(made: Made, tmp_path: Path) -> None:
    rendering = asyncio.ensure_future(LocalRenderer(tmp_path).submit(replace(made.job, attempt_id="a"), _free))
    while not any(tmp_path.glob("renders/.*/master.mp4")):  # the encoder is at work
        await asyncio.sleep(0.01)
        assert not rendering.done()
    assert _ffmpeg_children()
    rendering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rendering
    assert _ffmpeg_children() == []
    assert list(tmp_path.glob("renders/*")) == []


async def test_a_render_tells_how_much_of_the_video_is_written_and_its_best_frame_has_a_headline(
    made: Made, tmp_path: Path
) -> None:
    told: list[float] = []
    await local_renderer.render(made.job, tmp_path / "video.mp4", progress=told.append)
    assert told == sorted(told)
    assert told[-1] >= 0.95, "ffmpeg says at its end that all of it is written"
    assert told[-1] <= 1
    assert (tmp_path / "video.mp4").read_bytes() == made.master.read_bytes()
    stretches = headlines(made.voiceover.sentences, len(SCRIPT.scenes))
    best = best_frame(made.master, stretches)
    assert best.jpeg[:3] == b"\xff\xd8\xff"
    assert any(begin <= best.second <= end for begin, end in stretches)


async def test_a_render_without_readable_sound_fails_for_good(made: Made, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF nonsense")
    with pytest.raises(Permanent, match="voiceover cannot be read"):
        await local_renderer.render(replace(made.job, audio=tmp_path / "a.wav"), tmp_path / "x.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


async def test_words_that_look_like_tags_are_drawn_as_words(made: Made) -> None:
    levels = np.zeros((1, 12), dtype=np.float32)
    document = cards.screenplay(made.job, levels, load_fonts(made.renderer._fonts))
    assert "Ocean \\{Facts\\}" in document
    assert "TWO \\\u2060N STOP" in document
    assert "**" not in document


# --- loudness and ffmpeg --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeats", [5, 14])
async def test_longer_speech_lands_within_one_unit_of_the_target(made: Made, tmp_path: Path, repeats: int) -> None:
    """15 and 45 seconds, encoded as in the master: what counts is what comes out of the decoder."""
    long, encoded = tmp_path / "long.wav", tmp_path / "out.m4a"
    await ffmpeg.run(["-stream_loop", str(repeats - 1), "-i", str(made.job.audio), "-c:a", "pcm_s16le", str(long)])
    gain = await ffmpeg.voice_gain(long)
    await ffmpeg.run(["-i", str(long), "-af", graph.voice(gain), *graph.AUDIO_CODEC, str(encoded)])
    assert await ffmpeg.loudness(encoded) == pytest.approx(graph.TARGET_LUFS, abs=1.0)


async def test_silence_is_not_blown_up(tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    await ffmpeg.run(["-f", "lavfi", "-i", "anullsrc=r=24000:cl=mono", "-t", "3", str(path)])
    assert await ffmpeg.voice_gain(path) == 0.0


@pytest.mark.parametrize("progress", [None, lambda _: None])
async def test_what_ffmpeg_says_is_in_the_error(progress: Callable[[float], None] | None) -> None:
    with pytest.raises(Permanent, match="No such file") as caught:
        await ffmpeg.run(["-i", "/nowhere.mp4", "-f", "null", "-"], progress=progress)
    assert "/nowhere.mp4" in caught.value.evidence.body


@pytest.mark.parametrize("progress", [None, lambda _: None])
async def test_an_ffmpeg_that_hangs_is_killed_and_may_be_tried_again(progress: Callable[[float], None] | None) -> None:
    with pytest.raises(Transient, match="did not finish"):
        await ffmpeg.run(["-re", "-f", "lavfi", "-i", "anullsrc", "-f", "null", "-"], timeout=0.3, progress=progress)
    assert _ffmpeg_children() == []


@pytest.mark.skipif(shutil.which("ps") is None or not Path("/proc").exists(), reason="asks Linux for its processes")
async def test_ffmpeg_dies_with_a_parent_that_was_killed(gone: Callable[[int], bool]) -> None:
    code = (
        "import asyncio; from phantoms_dagster.media import ffmpeg\n"
        "asyncio.run(ffmpeg.run(['-re','-f','lavfi','-i','anullsrc','-t','90','-f','null','-']))"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    while not (running := _ffmpeg_children(parent.pid)):  # noqa: ASYNC110 - another process cannot set our event
        await asyncio.sleep(0.02)
    parent.kill()
    await parent.wait()
    assert gone(int(running[0])), "ffmpeg outlived its parent"


def _never() -> Path:
    raise AssertionError("nothing was to be written")


# --- the studio -----------------------------------------------------------------------------------------------------


async def test_the_thumbnail_is_a_jpeg_of_270_by_480(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "100%03d [a]*"
    folder.mkdir()
    path = folder / "thumb.jpg"
    await FfmpegStudio().thumbnail(made.master, path)
    assert path.read_bytes()[:3] == b"\xff\xd8\xff"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.width, stream.codec_context.height) == (270, 480)
    assert [p.name for p in folder.iterdir()] == ["thumb.jpg"]


async def test_a_file_with_moov_at_the_end_is_only_remuxed(made: Made, tmp_path: Path) -> None:
    late, out, studio = tmp_path / "late.mp4", tmp_path / "out.mp4", FfmpegStudio()
    await ffmpeg.run(["-i", str(made.master), "-c", "copy", str(late)])
    before = await studio.probe(late)
    assert not before.moov_first
    assert (await studio.fit(late, Platform("tiktok"), _never)).how == "kept"
    fitted = await studio.fit(late, Platform("instagram"), lambda: out)
    after = await studio.probe(out)
    assert fitted == FitResult("remuxed", after)
    assert after.moov_first
    assert (after.seconds, after.fps, after.video_codec) == (before.seconds, before.fps, before.video_codec)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["late.mp4", "out.mp4"]


@pytest.mark.parametrize(
    "codec",
    [
        ["-c:v", "libx264", "-pix_fmt", "yuv420p"],
        ["-c:v", "libx264", "-pix_fmt", "yuv444p", "-bf", "2"],
        ["-vf", "interlace", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-flags", "+ildct+ilme"],
        ["-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none"],
        ["-vf", "interlace", "-c:v", "mpeg2video", "-flags", "+ildct+ilme"],
    ],
    ids=["h264", "b-frames", "interlaced", "hevc", "mpeg2"],
)
async def test_a_video_that_was_probed_is_judged_by_its_index_as_by_its_pictures(codec: list[str], tmp_path: Path) -> None:
    video, studio = tmp_path / "video.mp4", FfmpegStudio()
    source = ["-f", "lavfi", "-i", "testsrc2=s=360x640:r=30:d=4", "-f", "lavfi", "-i", "sine=d=4"]
    await ffmpeg.run([*source, *codec, "-c:a", "aac", str(video)])
    probe = await studio.probe(video)
    assert _read(video, known=probe) == (looked := _read(video))
    assert looked.interlaced == ("interlace" in codec)
    outs = [tmp_path / "known.mp4", tmp_path / "looked.mp4"]
    told = await studio.fit(video, Platform("instagram"), lambda: outs[0], known=probe)
    assert told == await studio.fit(video, Platform("instagram"), lambda: outs[1])
    assert [out.exists() for out in outs] == [told.how != "kept"] * 2


async def test_an_index_alone_does_not_suffice_for_a_file_that_is_not_an_mp4(tmp_path: Path) -> None:
    video, outs, studio = tmp_path / "video.flv", [tmp_path / "known.mp4", tmp_path / "looked.mp4"], FfmpegStudio()
    source = ["-f", "lavfi", "-i", "testsrc2=s=360x640:r=30:d=4", "-f", "lavfi", "-i", "sine=d=4"]
    await ffmpeg.run([*source, "-c:v", "flv", "-c:a", "mp3", str(video)])
    probe = await studio.probe(video)
    told = await studio.fit(video, Platform("instagram"), lambda: outs[0], known=probe)
    assert told == await studio.fit(video, Platform("instagram"), lambda: outs[1])
    assert told.how != "kept"


async def test_a_wide_webm_is_made_an_upright_mp4(tmp_path: Path) -> None:
    wide, out, studio = tmp_path / "wide.webm", tmp_path / "out.mp4", FfmpegStudio()
    source = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=15:d=3.2", "-f", "lavfi", "-i", "sine=d=3.2"]
    await ffmpeg.run([*source, "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus", str(wide)])
    found = await studio.probe(wide)
    assert (found.container, found.video_codec, found.audio_codec) == ("webm", "vp8", "opus")
    fitted = await studio.fit(wide, Platform("instagram"), lambda: out, known=found)
    probe = await studio.probe(out)
    assert fitted == FitResult("transcoded", probe)
    assert (probe.container, probe.width, probe.height, probe.fps, probe.audio_codec) == ("mp4", 1080, 1920, 30.0, "aac")


async def test_what_cannot_be_mended_is_refused_before_any_work(tmp_path: Path) -> None:
    studio = FfmpegStudio()
    short, sound, text = tmp_path / "short.mp4", tmp_path / "sound.wav", tmp_path / "text.mp4"
    await ffmpeg.run(["-f", "lavfi", "-i", "color=s=360x640:r=30:d=1", "-pix_fmt", "yuv420p", str(short)])
    await ffmpeg.run(["-f", "lavfi", "-i", "sine=d=1", str(sound)])
    text.write_text("this is not a video")
    with pytest.raises(Permanent, match="no video shorter than 3 s"):
        await studio.fit(short, Platform("instagram"), _never)
    with pytest.raises(Permanent, match="no moving picture"):
        await studio.probe(sound)
    with pytest.raises(Permanent, match="unreadable media"):
        await studio.probe(text)
    with pytest.raises(Permanent, match="unreadable media"):
        await studio.probe(tmp_path / "nowhere.mp4")
