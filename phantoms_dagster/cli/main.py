"""The command line's entry point, and an example or two for each command's help. Commands stand in the files of their groups."""

from __future__ import annotations

import sys

import typer

from phantoms_dagster.cli import (
    accounts,
    briefs,
    catalogue,
    dead_letters,
    demo,
    doctor,
    init,
    limits,
    metrics,
    retire,
    retry,
    review,
    up,
    worker,
)
from phantoms_dagster.cli.console import plain_errors

EXAMPLES = {
    "up": ["phantoms up", "phantoms up --home ~/studio --port 3001"],
    "sandbox": ["phantoms sandbox --port 8321 --fast-renders"],
    "demo": ["phantoms demo", "phantoms demo --videos 10 --keep ~/demo --wait"],
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
    "status": ["phantoms status", "phantoms status --limit 100 --json"],
    "show": ["phantoms show 20261122-why-octopuses-have-three-hearts-10e6", "phantoms show octopuses --json"],
    "approve": ["phantoms approve octopuses", "phantoms approve --all --reviewer Ada"],
    "reject": ['phantoms reject octopuses --note "the second fact is wrong"'],
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

app = typer.Typer(
    name="phantoms",
    help="Short-form video from brief to published posts, unattended.\n\n"
    'Try it: [bold]phantoms demo[/]. Run it: [bold]phantoms up[/], then [bold]phantoms add "Why octopuses have three hearts"[/].',
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)

for group in (up, demo, briefs, catalogue, retire, review, retry, dead_letters, accounts, doctor, limits, metrics, worker, init):
    group.register(app)

for command in app.registered_commands:
    name = str(command.name or getattr(command.callback, "__name__", ""))
    command.epilog = "\n\n".join(["Examples:", *(f"[bold]{example}[/]" for example in EXAMPLES.get(name, []))])


def main() -> None:
    """Run the command that the arguments name."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show `●` gets `?`, not a traceback.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    try:
        with plain_errors():
            app()
    except typer.Exit as stop:
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    main()
