"""The result of `phantoms demo`: the proof from the sandbox's ledger, the costs, the videos and the best frame of each."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from phantoms_dagster.cli.open_video import video_file
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.domain.models import MediaFile, ScriptOutput, Sentence
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.catalogue import StageRow
from phantoms_dagster.store.dead_letters.letters import DeadLetters
from phantoms_dagster.store.paid_renders import paid_renders
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.media import MediaFiles

SLUG_CHARACTERS = 80
Post = tuple[str, str]  # platform and id


@dataclass(frozen=True)
class Proof:
    """How many entries of one kind (`post`, `render`) were expected, and how many the sandbox's ledger has.

    `doubled` counts surplus entries, `lost` expected entries that are missing.
    """

    wanted: int
    found: int
    doubled: int
    lost: int

    @property
    def holds(self) -> bool:
        """Whether every expected entry exists exactly once."""
        return self.found == self.wanted and not self.doubled and not self.lost


@dataclass(frozen=True)
class DemoOutcome:
    """The result of a demo. `problems` is empty when the sandbox's ledger has exactly one post per video and platform and one paid
    render per video, and a requested outage went as planned.

    `costs` is in US dollars by stage. `folder` has the videos and the best frames.
    """

    videos: list[dict[str, Any]]
    totals: dict[str, Any]
    problems: list[str]
    proof: dict[str, Proof] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    folder: Path = Path()


def ledger(sandbox_url: str, kind: str) -> list[dict[str, Any]]:
    """Return the entries of one kind in the sandbox's ledger. Raises httpx.HTTPError."""
    found = httpx.get(f"{sandbox_url}/_sandbox/ledger", params={"kind": kind}, timeout=30, trust_env=False).raise_for_status()
    entries: list[dict[str, Any]] = found.json()["entries"]
    return entries


def posted(sandbox_url: str) -> Counter[Post]:
    """Return how often each post (platform and id) is in the sandbox's ledger."""
    return Counter((entry["platform"], str(entry["remote_id"])) for entry in ledger(sandbox_url, "post"))


def end_of_demo(
    sandbox_url: str, services: Services, keys: Sequence[str], before: Collection[Post], folder: Path, *, by_hand: bool = False
) -> DemoOutcome:
    """Collect the result of the demo and write the videos and frames to `folder`. `before` are posts of earlier demos.

    `by_hand`: a person reviewed. Rejected videos need no posts, and an edited script was rendered again.
    """
    shown, problems, costs = [], [], dict.fromkeys(STAGES, 0.0)
    titles = {row.key: row.title for row in services.catalogue().videos(keys=keys, limit=len(keys))}
    for key in keys:
        stages = services.catalogue().stages(key)
        if not (by_hand and stages["approval"].state == "rejected"):
            problems += [f"{key}: {n} is {s.state}: {s.reason or ''}" for n, s in stages.items() if s.state != "done"]
        for name, row in stages.items():
            costs[name] += float(row.cost)
        shown.append({**_video(key, stages, services.media_files), "title": titles[key]})
    known = {(post["platform"], post["remote_id"]) for video in shown for post in video["posts"]}
    there = Counter({post: times for post, times in posted(sandbox_url).items() if post in known or post not in before})
    to_post = [video for video in shown if not by_hand or video["stages"]["approval"] != "rejected"]
    wanted = sum(STAGES[name].kind == "post" for video in to_post for name in video["stages"])
    paid = [entry for entry in ledger(sandbox_url, "render") if entry["video_key"] in set(keys)]
    proof = {"post": compared(wanted, known, there)}
    if paid and by_hand:
        ours = paid_renders(services.engine, keys)
        proof["render"] = compared(len(ours), ours, Counter(str(entry["id"]) for entry in paid))
    elif paid:  # without the render API, videos are rendered locally for free
        proof["render"] = compared(len(keys), set(keys), Counter(str(entry["video_key"]) for entry in paid))
    problems += _doubts(proof, shown, there)
    performance = services.performance().table("video_performance")
    if len(performance) != len([v for v in shown if v["posts"]]):
        problems.append(f"video_performance has {counted(len(performance), 'row')} for {counted(len(shown), 'video')}")
    views = dict(zip(performance["video_key"], performance["views"], strict=True))
    for video in shown:
        video["views"] = int(views.get(video["id"], 0))
    problems += write_pictures(shown, services, folder)
    totals = {
        "videos": len(shown),
        "posts": len(known),
        "ledger_posts": sum(there.values()),
        "views": int(performance["views"].sum()) if len(performance) else 0,
        "cost_usd": round(sum(costs.values()), 4),
    }
    return DemoOutcome(shown, totals, problems, proof, {name: round(usd, 4) for name, usd in costs.items() if usd}, folder)


def compared(wanted: int, known: Collection[Any], there: Mapping[Any, int]) -> Proof:
    """Compare what our tables say was made (`known`) with how often the ledger has each entry (`there`)."""
    entries = sum(there.values())
    once = len([one for one in known if there.get(one)])
    return Proof(wanted, entries, entries - once, wanted - once)


def _doubts(proof: Mapping[str, Proof], videos: Sequence[Mapping[str, Any]], there: Mapping[Post, int]) -> list[str]:
    doubts = []
    for video in videos:
        for post in video["posts"]:
            times = there.get((post["platform"], post["remote_id"]), 0)
            if times != 1:
                doubts.append(f"{video['id']}: the sandbox counts {counted(times, 'post')} on {post['platform']}")
    for kind, found in proof.items():
        if not found.holds:
            doubts.append(f"the sandbox's ledger has {found.found} {kind}s instead of {found.wanted}")
    return doubts


def _video(key: str, stages: Mapping[str, StageRow], media_files: MediaFiles) -> dict[str, Any]:
    outputs = {name: row.output for name, row in stages.items() if row.state == "done" and row.output}
    found: dict[str, Any] = {}
    posts = []
    for name, output in outputs.items():
        if "video" in output:
            found[name] = media_files.address(MediaFile(**output["video"]))
        if output["kind"] == "post":
            posts.append({k: output[k] for k in ("platform", "account", "remote_id", "url")})
    return {
        "id": key,
        "stages": {name: row.state for name, row in stages.items()},
        "files": found,
        "posts": sorted(posts, key=lambda post: str(post["platform"])),
        "probe": (outputs.get("rendered_video") or {}).get("probe"),
        "cost_usd": float(sum(row.cost for row in stages.values())),
    }


def dead_letters(services: Services, keys: Sequence[str]) -> int:
    """Return the number of dead letters of these videos, in any state."""
    letters = DeadLetters(services.engine)
    return sum(len(letters.of_video(key)) for key in keys)


# --- pictures


def write_pictures(videos: Sequence[dict[str, Any]], services: Services, folder: Path) -> list[str]:
    """Write each video and its best frame to the folder, named by title, and set their paths in `videos`. Return the problems."""
    # Only this needs numpy and PyAV.
    from phantoms_dagster.media.frames import best_frame, headlines  # noqa: PLC0415

    problems: list[str] = []
    names: set[str] = set()
    folder.mkdir(parents=True, exist_ok=True)
    for video in videos:
        video |= {"film": None, "frame": None}
        stages = services.catalogue().stages(video["id"])
        if stages["rendered_video"].state != "done":
            continue  # already in the problems
        name = _name(video["title"], names)
        try:
            master = video_file(video["id"], "rendered_video", stages, services.media_files)
            frame = best_frame(master, headlines(*_headlined(stages)))
        except (PhantomsError, OSError) as error:
            problems.append(f"{video['id']}: no picture: {error}")
            continue
        picture = folder / f"{name}.jpg"
        picture.write_bytes(frame.jpeg)
        video["frame"] = {"path": str(picture), "second": round(frame.second, 2), "sharpness": round(frame.sharpness, 1)}
        video["film"] = str(_linked(master, folder / f"{name}{master.suffix}"))
    return problems


def slug(title: str) -> str:
    """Convert a title to a file name without suffix: `why-octopuses-have-three-hearts`. Non-Latin letters stay."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", title).lower().replace("'", "").replace("\u2019", ""))
    name = "-".join(words).replace("_", "-")[:SLUG_CHARACTERS].strip("-")
    return name or "video"


def _name(title: str, taken: set[str]) -> str:
    name, number = slug(title), 2
    while name in taken:
        name, number = f"{slug(title)}-{number}", number + 1
    taken.add(name)
    return name


def _headlined(stages: Mapping[str, StageRow]) -> tuple[list[Sentence], int]:
    """Return the spoken sentences and the number of scenes."""
    spoken, script = stages["voiceover"].output or {}, ScriptOutput.model_validate(stages["script"].output)
    return [Sentence.model_validate(one) for one in spoken["sentences"]], len(script.script.scenes)


def _linked(file: Path, to: Path) -> Path:
    """Hard-link the file, which needs no space. Copy it when the disk has no hard links."""
    with suppress(FileNotFoundError):
        to.unlink()
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)
    return to
