"""`phantoms status` and `phantoms show`: the state of all videos, and of one."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer
from rich import box
from rich.cells import cell_len
from rich.panel import Panel
from rich.table import Table

from phantoms_dagster.cli.completion import complete_video
from phantoms_dagster.cli.console import STATE_STYLES, current, out, plain, plain_errors, print_json, say
from phantoms_dagster.cli.listing import lines_of, listed, marks, note_text
from phantoms_dagster.cli.sentence import WrappedText
from phantoms_dagster.cli.times import local, soon
from phantoms_dagster.domain.attention import Attention
from phantoms_dagster.domain.left_out import left_out_of
from phantoms_dagster.domain.models import Brief, MediaFile, StageOutput
from phantoms_dagster.domain.outlook import OPEN_STATES, Outages, next_steps, note, probe
from phantoms_dagster.domain.pacing import describe_waits
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.domain.wording import notes
from phantoms_dagster.store.catalogue import StageRow
from phantoms_dagster.store.decisions import HeldVideo, Review
from phantoms_dagster.store.outlook import NextStep, Outlook
from phantoms_dagster.store.stored import UnreadableRow, output_of
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.media import MediaFiles

# Below this width the table of stages loses its less important columns.
NARROW = 72
# The room for a long note, in columns.
NOTE = 24
SHOWN_FIRSTS = 3
SHOWN_HELD = 3

Found = TypeVar("Found")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Look")(status)
    app.command(rich_help_panel="Look")(show)


def status(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="List at most this many videos")] = 25,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """List the newest videos, what waits for you, what is wrong, and what happens next."""
    with plain_errors():
        services = Services(current())
        try:
            videos, counts = services.catalogue().videos(limit=limit), services.catalogue().counts()
            undecided = services.decisions().undecided()
            held = services.decisions().held()
            firsts = services.decisions().first_approvals(undecided)
            waits = [item for item in services.waits_for_people() if item.id != "review"]
            upcoming = Outlook(services.engine).next_steps()
            # Ask Redis only when a stage could be waiting for a breaker.
            asked = any(state in OPEN_STATES for name, of in counts.items() if name != "approval" for state in of)
            outages = services.outages() if asked else Outages()
        finally:
            services.close()
        holders = {one.key: one.reviewer for one in held}
        if as_json:
            listing = [{**asdict(v), "now": note_text(v, set(undecided), outages.found, holders)} for v in videos]
            everything = {"videos": listing, "stages": counts, "to_review": undecided, "first_approvals": firsts}
            everything["held"] = [{"key": h.key, "by": h.reviewer, "note": h.note, "since": h.held_at} for h in held]
            everything |= {"waits": [asdict(item) for item in waits], "next": [asdict(step) for step in upcoming]}
            breakers = [{"breaker": o.breaker, "until": o.until, "stages": sorted(o.stages)} for o in outages.found]
            print_json({**everything, "breakers": breakers, "redis_problem": outages.problem or None})
            return
        if not videos:
            _print_wrong(waits, outages)
            out.print('no videos yet; add one: phantoms add "Why octopuses have three hearts"', soft_wrap=True)
            return
        for lines in listed(lines_of(videos, set(undecided), outages.found, holders)):
            out.print(lines, soft_wrap=isinstance(lines, str))
        out.print()
        out.print("  ".join(f"[{STATE_STYLES[s]}]{m}[/] {s}" for s, m in marks().items()))
        shown = [name for name, stage in STAGES.items() if stage.usual or any(name in video.states for video in videos)]
        out.print("one mark per stage: " + ", ".join(shown), style="dim")
        if undecided:
            out.print(f"\n[bold]{len(undecided)} to review[/], most urgent first:")
            out.print(f"  phantoms show {undecided[0]}\n  phantoms approve {undecided[0]}", soft_wrap=True)
        for key, reviewer in list(firsts.items())[:SHOWN_FIRSTS]:
            say(f"  {plain(reviewer)} approved this one; a second person must approve it, too:")
            out.print(f"    phantoms approve {key}", soft_wrap=True)
        _print_held(held)
        _print_wrong(waits, outages)
        _print_next(counts, upcoming)


def _print_held(held: Sequence[HeldVideo]) -> None:
    """Print some of the videos on hold, each with the command that releases it on its own line."""
    if held:
        out.print(f"\n[bold]{len(held)} on hold[/], longest first:")
    for one in held[:SHOWN_HELD]:
        why = f": {plain(one.note)}" if one.note else ""
        say(f"  by {plain(one.reviewer)} since {local(one.held_at)}{why}")
        out.print(f"    phantoms unhold {one.key}", style="dim", soft_wrap=True)
    if len(held) > SHOWN_HELD:
        out.print(f"  ... and {len(held) - SHOWN_HELD} more; --json lists all", style="dim")


def _print_wrong(waits: Sequence[Attention], outages: Outages) -> None:
    """Print what needs a person and what holds videos up, each with the command to type."""
    if waits:
        out.print("\n[bold]Waits for you:[/]")
    for item in waits:
        say(f"  {plain(item.what)}")
        if item.next_step.startswith("phantoms "):
            out.print(f"    [dim]{plain(item.next_step)}[/]", soft_wrap=True)
        else:
            say(f"    [dim]{plain(item.next_step)}[/]")
    if outages.problem:
        say(f"\n[bold]Nothing runs:[/] {plain(outages.problem)}")
    if outages.found:
        out.print("\n[bold]Outages:[/] videos wait; nothing fails")
    for outage in outages.found:
        say(f"  the breaker of {plain(outage.breaker)} is open, {plain(probe(outage, soon))}")
        out.print(f"    [dim]phantoms breakers history {plain(outage.breaker)}[/]", soft_wrap=True)


def _print_next(counts: Mapping[str, Mapping[str, int]], upcoming: Sequence[NextStep]) -> None:
    """Print what happens next without a person."""
    running = [f"{of['running']} in {name}" for name in STAGES if (of := counts.get(name, {})).get("running")]
    if running or upcoming:
        out.print("\n[bold]Happens automatically:[/]")
    if running:
        say(f"  now: {', '.join(running)}")
    for step in upcoming:
        say(f"  {soon(step.at)}: {step.stage} of {step.key}")


def show(
    video: Annotated[str, typer.Argument(help="Key of the video, or enough of it", autocompletion=complete_video)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Show one video: its brief, script, files, posts, and why it waits or failed."""
    with plain_errors():
        services = Services(current())
        try:
            catalogue = services.catalogue()
            key = catalogue.find(video)
            stages, retired = catalogue.stages(key), catalogue.retired_at(key)
            waits = key in services.decisions().undecided(limit=100_000)
            unreadable: list[str] = []
            brief = _readable(lambda: catalogue.brief(key), unreadable)
            done = _outputs_of(key, stages, unreadable)
            review = _readable(lambda: services.decisions().review(key) if waits else None, unreadable)
            held = next((one for one in services.decisions().held() if one.key == key), None)
            accounts = catalogue.videos(keys=[key])[0].accounts
            asked = any(row.state in OPEN_STATES for name, row in stages.items() if name != "approval")
            outages = services.outages() if asked else Outages()
        finally:
            services.close()
        now = datetime.now(UTC)
        said = {n: note(n, row.waiting, now=now, say=soon, outages=outages.found, accounts=accounts) for n, row in stages.items()}
        if as_json:
            rows = {name: {**asdict(row), "note": said[name]} for name, row in stages.items()}
            found = (
                {
                    "words": [post.model_dump(mode="json") for post in review.words],
                    "content": review.content,
                    "warnings": list(review.warnings),
                    "first_approval": asdict(review.first) if review.first else None,
                }
                if review
                else None
            )
            print_json(
                {
                    "key": key,
                    "brief": brief.model_dump(mode="json") if brief else None,
                    "stages": rows,
                    "retired_at": retired,
                    "to_review": found,
                    "held": {"by": held.reviewer, "note": held.note, "since": held.held_at} if held else None,
                    "unreadable": unreadable,
                }
            )
            return
        seen = _Seen(key, brief, stages, said, done, unreadable, review, waits=waits, retired=retired)
        _print_video(seen, services.media_files)
        if held:
            why = f": {plain(held.note)}" if held.note else ""
            say(f"\n[bold]On hold[/] by {plain(held.reviewer)}{why}; release it:")
            out.print(f"  phantoms unhold {key}", soft_wrap=True)
        if outages.problem:
            say(f"\n[bold]Nothing runs:[/] {plain(outages.problem)}")


@dataclass(frozen=True)
class _Seen:
    """What `show` has read about a video. `said` is what each stage waits for; `waits`: the video waits for a decision."""

    key: str
    brief: Brief | None
    stages: Mapping[str, StageRow]
    said: Mapping[str, str]
    done: Mapping[str, Mapping[str, Any]]
    unreadable: Sequence[str]
    review: Review | None
    waits: bool
    retired: datetime | None


def _print_video(seen: _Seen, media_files: MediaFiles) -> None:
    """Print everything about a video: brief, stages, texts, and what to do next."""
    key, done = seen.key, seen.done
    out.print(_brief_panel(key, seen.brief) if seen.brief else f"[bold]{key}[/]", soft_wrap=True)
    for problem in seen.unreadable:
        say(plain(problem), style="red")
    out.print(_stages_table(seen.stages, seen.said))
    if "script" in done:
        out.print(_script_panel(done["script"]["script"]))
    for line in _taken_out(done):
        out.print(line, style="yellow", soft_wrap=True)
    for line in _outputs(media_files, done):
        out.print(line, soft_wrap=True)
    if seen.retired:
        out.print(f"\nretired {local(seen.retired)}; only its Dagster partition is gone", style="dim", soft_wrap=True)
        out.print(f"  phantoms unretire {key}", style="dim", soft_wrap=True)
    if seen.waits and seen.review:
        out.print(_words_panel(seen.review))
        if (first := seen.review.first) is not None:
            why = f": {plain(first.note)}" if first.note else ""
            say(f"\n[bold]Approved by {plain(first.reviewer)}[/], {local(first.given_at)}{why}; it needs a second person, too")
    steps = _to_review(seen) if seen.waits else next_steps(key, {name: row.waiting for name, row in seen.stages.items()})
    if steps:
        out.print("\n[bold]It waits for you:[/]")
    for step in steps:
        out.print(f"  {step}", soft_wrap=True)


def _to_review(seen: _Seen) -> list[str]:
    named = f" --content {seen.review.content[:12]}" if seen.review and seen.review.changed else ""
    watch = [f"phantoms open {seen.key}    # watch it"] if "rendered_video" in seen.done else []
    return [*watch, f"phantoms approve {seen.key}{named}", f'phantoms reject {seen.key} --note "why"']


def _readable(read: Callable[[], Found], problems: list[str]) -> Found | None:
    """Call `read` and return its result. When a row is unreadable, add the reason to `problems` and return None."""
    try:
        return read()
    except UnreadableRow as error:
        if str(error) not in problems:
            problems.append(str(error))
        return None


def _outputs_of(key: str, stages: Mapping[str, StageRow], problems: list[str]) -> dict[str, dict[str, Any]]:
    """Return the stored outputs of done stages. Unreadable ones are added to `problems`."""
    done: dict[str, dict[str, Any]] = {}
    for name, row in ((name, stages[name]) for name in STAGES if name in stages):
        read: Callable[[], StageOutput] = functools.partial(output_of, key, name, row.output)
        if row.state == "done" and _readable(read, problems) is not None:
            done[name] = row.output or {}
    return done


def _brief_panel(key: str, brief: Brief) -> Panel:
    lines = [f"[bold]{plain(brief.title)}[/]", plain(brief.angle), *(f"- {plain(fact)}" for fact in brief.facts)]
    lines.append(f"[dim]channel {brief.channel}, {', '.join(brief.platforms)}, priority {brief.priority}[/]")
    if brief.publish_at:
        lines.append(f"[dim]not before {local(brief.publish_at)}[/]")
    if cell_len(key) + 6 <= out.width:
        return Panel("\n".join(line for line in lines if line), title=key, title_align="left")
    out.print(key, soft_wrap=True)  # the panel would cut the key off
    return Panel("\n".join(line for line in lines if line))


def _stages_table(stages: Mapping[str, StageRow], said: Mapping[str, str]) -> Table:
    rows = [stages[name] for name in STAGES if name in stages]
    notes = [_note(row, said[row.stage]) for row in rows]
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("state", no_wrap=True)
    narrow = out.width < NARROW + min(max(map(cell_len, notes), default=0), NOTE)
    if not narrow:
        table.add_column("attempts", justify="right", no_wrap=True)
        table.add_column("finished", no_wrap=True)
        table.add_column("USD", justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for row, told in zip(rows, notes, strict=True):
        state = f"[{STATE_STYLES[row.state]}]{marks()[row.state]} {row.state}[/]"
        numbers = [str(row.attempts or ""), local(row.finished_at), f"{row.cost:.3f}" if row.cost else ""]
        table.add_row(row.stage, state, *([] if narrow else numbers), WrappedText(plain(told), folded=True))
    return table


def _note(row: StageRow, said: str) -> str:
    parts = _why(row, said)
    if row.paced:
        parts.append(describe_waits(row.paced))
    if row.cleaned:
        parts.append(f"files cleaned up {local(row.cleaned_at)}")
    return " ".join(part for part in parts if part)


def _why(row: StageRow, said: str) -> list[str]:
    """Return what a stage waits for and why. For a scheduled post the reason is left out: it repeats the time in another zone."""
    if row.state == "done":
        return []
    if said.startswith("scheduled"):
        return [said]
    reason = " ".join(part for part in (row.error_class or "", row.reason or "") if part)
    return [f"{said}: {reason}" if said and reason else said or reason]


def _scene(head: str, narration: str) -> str:
    """Format the headline and the narration of a scene. When the narration contains the headline, that part is bold instead."""
    words = re.findall(r"\w+", head)
    if not words:
        return plain(narration)
    same = re.search(r"(?<!\w)" + r"\W+".join(map(re.escape, words)) + r"(?!\w)", narration, re.IGNORECASE)
    if same is None:
        return f"[bold]{plain(head)}[/] {plain(narration)}"
    return f"{plain(narration[: same.start()])}[bold]{plain(same[0])}[/]{plain(narration[same.end() :])}"


def _script_panel(script: Mapping[str, Any]) -> Panel:
    scenes = [f"{n}. {_scene(s['on_screen_text'], s['narration'])}" for n, s in enumerate(script["scenes"], 1)]
    tags = f"[dim]{plain(' '.join(script['hashtags']))}[/]"
    lines = [f"[italic]{plain(script['hook'])}[/]", *scenes, plain(script["caption"]), tags]
    return Panel("\n".join(lines), title=plain(script["title"]), title_align="left")


def _taken_out(done: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what parts of the script are not in the video as written. A reviewer should know."""
    return map(plain, left_out_of(done))


def _words_panel(review: Review) -> Panel:
    lines = []
    for post in review.words:
        kids = ", made for kids" if post.made_for_kids else ""
        lines.append(
            f"[bold]{post.platform.title}[/] [dim]{plain(post.privacy)}{kids}[/]\n{plain(post.title)}\n{plain(post.caption)}"
        )
        lines[-1] += "".join(f"\n[yellow]{plain(note)}[/]" for note in notes(post))
    if review.changed:
        lines.append(f"[yellow]changed since it was rendered: {plain(review.changed)}[/]")
    lines += [f"[yellow]{plain(warning)}[/]" for warning in review.warnings]
    lines.append(f"[dim]content {review.content[:12]}[/]")
    return Panel("\n\n".join(lines), title="what would be posted", title_align="left")


def _outputs(media_files: MediaFiles, done: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, output in done.items():
        match output["kind"]:
            case "rendered_video" | "variant":
                yield f"{name}: {plain(media_files.address(MediaFile(**output['video'])))}"
            case "post":
                yield f"{name}: {plain(output['url'])}"
