"""The command line: the table of commands, and examples for each command's help.

A command's module is imported only when the command runs. So the table repeats the first paragraph of each command's help; a test
compares the two.
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
    "preflight": ["phantoms preflight", "phantoms preflight octopuses", "phantoms preflight --json"],
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
    "accounts": ["phantoms accounts", "phantoms accounts connect youtube --name main", "phantoms accounts --forget youtube:main"],
    "calendar": [
        "phantoms calendar",
        "phantoms calendar --days 30 --channel curious --json",
        "phantoms calendar move octopuses 2026-12-24T18:00",
        "phantoms calendar move octopuses next --platform tiktok",
        'phantoms calendar cancel octopuses --reason "the topic is no longer true"',
        'phantoms calendar override octopuses --reason "part two of the series"',
        "phantoms calendar feed add --channel curious",
    ],
    "doctor": ["phantoms doctor", "phantoms doctor --json"],
}

LINES = (
    LazyCommand(
        "up",
        "up",
        "Run",
        "Start everything and keep it running: servers, migrations, Dagster, and the sandbox for services without a key.",
    ),
    LazyCommand(
        "sandbox",
        "up",
        "Run",
        "Run only the sandbox: local stand-ins of every provider, with fault injection and a ledger of what they accepted.",
    ),
    LazyCommand(
        "demo",
        "demo.command",
        "Run",
        "Make real videos from bundled briefs and post them to the sandbox. Needs no keys and no installation.",
    ),
    LazyCommand(
        "add",
        "briefs",
        "Briefs",
        "Add one video. Phantoms makes it automatically and waits for your approval before it posts.",
    ),
    LazyCommand(
        "import",
        "briefs",
        "Briefs",
        "Add the videos in a file. Valid rows are added; invalid ones are listed with line and reason, and the exit code is 2.",
    ),
    LazyCommand(
        "edit",
        "briefs",
        "Briefs",
        "Change the brief of a video, or the words of its posts. Published posts do not change.",
    ),
    LazyCommand("status", "catalogue", "Look", "List the newest videos, what waits for you, what is wrong, and what happens next."),
    LazyCommand("show", "catalogue", "Look", "Show one video: its brief, script, files, posts, and why it waits or failed."),
    LazyCommand(
        "watch",
        "watch.command",
        "Look",
        "Watch stages and events live, and open and approve videos. Press q to quit.",
    ),
    LazyCommand("logs", "logs", "Look", "Show what all processes on this machine logged about one video, in time order."),
    LazyCommand(
        "open",
        "open_video",
        "Review",
        "Watch a video in the system's player or the browser. Without either, print its path.",
    ),
    LazyCommand(
        "retire",
        "retire",
        "Briefs",
        "Retire finished videos now. The next nightly run removes their partitions from Dagster.",
    ),
    LazyCommand(
        "unretire",
        "retire",
        "Briefs",
        "Bring retired videos back. Within seconds they are Dagster partitions again, at the end of the list.",
    ),
    LazyCommand(
        "approve",
        "review",
        "Review",
        "Approve videos. Exactly this video and these words are posted, even if something changes later.",
    ),
    LazyCommand(
        "reject",
        "review",
        "Review",
        "Reject videos, so they are not posted. You can make them again and decide again, or still approve them.",
    ),
    LazyCommand(
        "hold",
        "review",
        "Review",
        "Put videos on hold. They leave the review queue, and nobody can decide on them until you release them.",
    ),
    LazyCommand("unhold", "review", "Review", "Release videos from hold. They wait for a decision again."),
    LazyCommand(
        "retry",
        "retry",
        "Review",
        "Run a stage of a video again: one that failed, waits, hangs in a render, or is done (with --from).",
    ),
    LazyCommand(
        "accounts", "accounts", "Look", "Show the accounts: who owns each one according to its platform, and why its posts wait."
    ),
    LazyCommand(
        "preflight",
        "preflight",
        "Look",
        "Show what would make the next posts fail: account, permissions, quota, file and words.",
    ),
    LazyCommand(
        "doctor",
        "doctor",
        "Look",
        "Check settings, servers, ffmpeg, keys and disk, and say how to fix problems. Exits with 1 when it finds one.",
    ),
    LazyCommand(
        "settings",
        "settings",
        "Look",
        "Show the current settings, where each value came from, and unknown variables. Secrets are hidden.",
    ),
    LazyCommand(
        "pools",
        "limits",
        "Look",
        "Show the limits on calls now: slots, waiting calls, rates, daily quotas, and how far 429s have reduced them.",
    ),
    LazyCommand(
        "metrics",
        "metrics",
        "Run",
        "Serve Prometheus metrics at /metrics, read from PostgreSQL and Redis at each scrape. `phantoms up` includes this.",
    ),
    LazyCommand(
        "desk",
        "desk",
        "Run",
        "Serve the desk: web pages to review videos and handle failures. `phantoms up` includes this.",
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
        "Notify other programs of events with signed requests, see what was delivered, and send it again.",
    ),
    LazyCommand(
        "worker",
        "worker",
        "Run",
        "Run Dagster runs on this machine. `phantoms up` starts workers; this adds more, here or on other machines.",
    ),
    LazyCommand(
        "init",
        "init",
        "Run",
        "Prepare the servers and the data directory once, before anything else starts. `phantoms up` includes this.",
    ),
    LazyCommand(
        "guest-links",
        "guest_links",
        "Review",
        "Let a person without an account approve or reject one video, once, with a link that expires.",
    ),
    LazyCommand(
        "calendar",
        "calendar",
        "Review",
        "Show when posts go out and which slots are free or were missed; move posts and cancel them.",
    ),
    LazyCommand(
        "posts",
        "posts",
        "Review",
        "List and show posts, settle unknown ones and drafts, and delete posts at their platforms.",
    ),
    LazyCommand(
        "dead-letters",
        "dead_letters",
        "Review",
        "See what failed for good, replay it once its cause is fixed, or discard it.",
    ),
    LazyCommand("breakers", "limits", "Look", "Show the breakers; open or close one, or read its history."),
)


class Commands(LazyGroup):
    """All commands of the program."""

    lines = LINES
    examples = EXAMPLES


app = typer.Typer(
    name="phantoms",
    cls=Commands,
    help="Short videos from brief to published post, automatically.\n\n"
    'Try it: [bold]phantoms demo[/]. Run it: [bold]phantoms up[/], then [bold]phantoms add "Why octopuses have three hearts"[/].',
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def phantoms() -> None:
    """Make the application a group of commands."""


def main() -> None:
    """Run the command that the arguments name."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show `●` gets `?` instead of a traceback.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    # Typer prints help with its own console, so the fix goes into the class.
    Console.on_broken_pipe = reader_gone  # type: ignore[method-assign, assignment]
    try:
        with plain_errors():
            app()
    except typer.Exit as stop:
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    main()
