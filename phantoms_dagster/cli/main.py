"""The command line's entry point: the table of commands, and an example or two for each command's help.

A command's module is imported only when the command runs. The table repeats each command's first paragraph of help; a test
compares both.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from phantoms_dagster.cli.console import plain_errors, reader_gone
from phantoms_dagster.cli.lazy import LazyCommand, LazyGroup

EXAMPLES = {
    "up": ["phantoms up", "phantoms up --home ~/studio --port 3001"],
    "sandbox": ["phantoms sandbox --port 8321 --fast-renders"],
    "demo": ["phantoms demo", "phantoms demo --faults", "phantoms demo --review", "phantoms demo --videos 10 --keep ~/demo --wait"],
    "add": [
        'phantoms add "Why octopuses have three hearts"',
        'phantoms add "How honey stays good" --fact "Bees add an enzyme" --platforms youtube,tiktok --priority 1',
        'phantoms add "A look at the longest night" --publish-at 2026-12-21T18:00+01:00',
    ],
    "import": [
        "phantoms import briefs.csv --dry-run",
        "phantoms import briefs.xlsx --update",
        "phantoms import briefs.jsonl --json",
    ],
    "edit": [
        "phantoms edit octopuses --publish-at 2026-12-24T18:00+01:00",
        "phantoms edit octopuses --platforms youtube,tiktok --priority 1",
    ],
    "settings": ["phantoms settings", "phantoms settings youtube", "phantoms settings --changed --json"],
    "status": ["phantoms status", "phantoms status --limit 100 --json"],
    "show": ["phantoms show why-octopuses-have-three-hearts-20261122-10e6", "phantoms show octopuses --json"],
    "approve": ["phantoms approve octopuses", "phantoms approve --all", "phantoms approve octopuses --only youtube,tiktok"],
    "open": ["phantoms open octopuses", "phantoms open octopuses --platform tiktok --print"],
    "watch": ["phantoms watch", "phantoms watch --json | jq .key"],
    "logs": ["phantoms logs octopuses", "phantoms logs octopuses --follow"],
    "reject": ['phantoms reject octopuses --note "the second fact is wrong"'],
    "hold": ['phantoms hold octopuses --note "waits for the lawyer"'],
    "unhold": ["phantoms unhold octopuses"],
    "desk": ["phantoms desk", "phantoms desk --port 4001"],
    "retry": ["phantoms retry octopuses", "phantoms retry octopuses --from rendered_video --yes"],
    "retire": ["phantoms retire octopuses", "phantoms retire --finished-before 30d --dry-run"],
    "unretire": ["phantoms unretire octopuses"],
    "pools": ["phantoms pools", "phantoms pools publish_youtube --json"],
    "metrics": ["phantoms metrics", "phantoms metrics --port 9100"],
    "worker": ["phantoms worker", "phantoms worker --queues script=2,rendered_video=1"],
    "init": ["phantoms init", "phantoms init --code-server code-server:4000 --machines 4"],
    "accounts": ["phantoms accounts", "phantoms accounts --forget youtube:main"],
    "doctor": ["phantoms doctor", "phantoms doctor --json"],
}

LINES = (
    LazyCommand(
        "up",
        "up",
        "Run",
        "Start everything and stay: servers, migrations, Dagster, and the sandbox for integrations without a key.",
    ),
    LazyCommand(
        "sandbox",
        "up",
        "Run",
        "Run only the sandbox: loopback stand-ins of every provider, with fault injection and a ledger of what they accepted.",
    ),
    LazyCommand(
        "demo",
        "demo.command",
        "Run",
        "Make real videos from bundled briefs and post them to the sandbox, on embedded servers: no keys, nothing to install.",
    ),
    LazyCommand(
        "add",
        "briefs",
        "Briefs",
        "Add one video. It goes through all stages by itself and waits for your approval before it is posted.",
    ),
    LazyCommand(
        "import",
        "briefs",
        "Briefs",
        "Add the videos of a file. Bad rows are named with line and reason, the good ones are taken; then the exit code is 2.",
    ),
    LazyCommand(
        "edit",
        "briefs",
        "Briefs",
        "Change the brief of a video that is there already, or the words of its posts. What is posted stays posted.",
    ),
    LazyCommand(
        "status", "catalogue", "Look", "List the newest videos, what waits for you, what is wrong, and what happens next and when."
    ),
    LazyCommand("show", "catalogue", "Look", "Show one video: its brief, script, files, posts, and why it waits or failed."),
    LazyCommand(
        "watch",
        "watch.command",
        "Look",
        "Watch the stages, the newest events and what waits for you; open and approve films. Ends with q.",
    ),
    LazyCommand("logs", "logs", "Look", "Show what all processes on this machine logged about one video, in the order of time."),
    LazyCommand(
        "open",
        "open_film",
        "Review",
        "Watch a video's film in the player of this system, or in the browser. Where there is neither, its path is printed.",
    ),
    LazyCommand(
        "retire",
        "retire",
        "Briefs",
        "Retire finished videos now: they leave Dagster's partitions with the next nightly run, as soon as no run works on them.",
    ),
    LazyCommand(
        "unretire",
        "retire",
        "Briefs",
        "Take retired videos back: within seconds they are partitions again, last in the list. Then regenerate what you want.",
    ),
    LazyCommand("approve", "review", "Review", "Approve videos: exactly these bytes and words go out, whatever is changed later."),
    LazyCommand(
        "reject",
        "review",
        "Review",
        "Reject videos: they are not posted. Regenerate the script or the render and decide again, or approve after all.",
    ),
    LazyCommand(
        "hold",
        "review",
        "Review",
        "Put videos on hold: they leave the queue, and nobody can decide on them, until they are taken back.",
    ),
    LazyCommand("unhold", "review", "Review", "Take videos back from hold: they wait for a decision again."),
    LazyCommand(
        "retry",
        "retry",
        "Review",
        "Ask for a video's stage again: one that failed, waits, hangs in a render, or is done (with --from).",
    ),
    LazyCommand(
        "accounts", "accounts", "Look", "Show the accounts: whose each one is, as its platform says, and why its posts wait."
    ),
    LazyCommand(
        "doctor",
        "doctor",
        "Look",
        "Check settings, servers, ffmpeg, keys and disk, and say how to fix what is wrong. Exits with 1 when something is.",
    ),
    LazyCommand(
        "settings",
        "settings",
        "Look",
        "Show the settings in force: each value, where it came from, and variables that are no setting. Secrets are hidden.",
    ),
    LazyCommand(
        "pools",
        "limits",
        "Look",
        "Show what paces the calls now: slots, who waits, rates, daily quotas, and how far 429s have narrowed them.",
    ),
    LazyCommand(
        "metrics",
        "metrics",
        "Run",
        "Serve Prometheus metrics under /metrics, read from PostgreSQL and Redis at each scrape. `phantoms up` does it by itself.",
    ),
    LazyCommand(
        "desk",
        "desk",
        "Run",
        "Serve the desk: the pages where people review videos and look after what failed. `phantoms up` does it by itself.",
    ),
    LazyCommand(
        "users",
        "users",
        "Run",
        "Add and remove the people who use the desk, and the tokens of programs that use its API.",
    ),
    LazyCommand(
        "webhooks",
        "webhooks",
        "Run",
        "Tell other programs of events, signed and at least once; see what was delivered, and send it again.",
    ),
    LazyCommand(
        "worker",
        "worker",
        "Run",
        "Carry Dagster runs on this machine. `phantoms up` starts workers by itself; this adds more, here or on other machines.",
    ),
    LazyCommand(
        "init",
        "init",
        "Run",
        "Make the servers and the data directory ready, once, before anything else starts. `phantoms up` does it by itself.",
    ),
    LazyCommand(
        "guest-links",
        "guest_links",
        "Review",
        "Let somebody without an account decide on one video, once, by a link that expires.",
    ),
    LazyCommand(
        "dead-letters",
        "dead_letters",
        "Review",
        "What failed for good: look at it, replay it once its cause is fixed, or discard it.",
    ),
    LazyCommand(
        "breakers", "limits", "Look", "Show every breaker that was used; open one, close one, or read what happened to it."
    ),
)


class Commands(LazyGroup):
    """All commands of the program."""

    lines = LINES
    examples = EXAMPLES


app = typer.Typer(
    name="phantoms",
    cls=Commands,
    help="Short-form video from brief to published posts, unattended.\n\n"
    'Try it: [bold]phantoms demo[/]. Run it: [bold]phantoms up[/], then [bold]phantoms add "Why octopuses have three hearts"[/].',
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def phantoms() -> None:
    """Do nothing before a command: this makes the application a group."""


def main() -> None:
    """Run the command that the arguments name."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show `●` gets `?`, not a traceback.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    # Help is printed by Typer with a console of its own.
    Console.on_broken_pipe = reader_gone  # type: ignore[method-assign, assignment]
    try:
        with plain_errors():
            app()
    except typer.Exit as stop:
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    main()
