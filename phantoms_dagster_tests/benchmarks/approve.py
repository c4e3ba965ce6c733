"""*approve*: from the click on *Approve* to the posts committed on three platforms, on an idle stack as users have it.

The click is the form of the review page, sent over HTTP to the desk of that stack by a person who is logged in, with nothing to
undo (`PHANTOMS_DESK_UNDO_SECONDS=0`). Every call to a provider takes 50 ms. The clock starts before the request and stops when
a reader that looks every 20 ms sees all three posts committed. One video at a time, each on accounts of its own; the voice and the
video are prepared ones.
"""

from __future__ import annotations

import argparse
import html
import random
import re
import time

import httpx

from phantoms_dagster.desk.passwords import hash_password
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.users import Users
from phantoms_dagster_tests.benchmarks.report import Report, percentile
from phantoms_dagster_tests.benchmarks.stack import STAND_INS, BenchStack, open_stack, wait_for

P50_SECONDS, P95_SECONDS = 4.0, 6.0
CALL_SECONDS = 0.05
MAX_WAIT_SECONDS = 120.0
LOOK_SECONDS = 0.02
NAME, PASSWORD = "kim", "a long enough password"
_POSTED = """
    SELECT count(*) AS n FROM phantoms.posts p JOIN phantoms.videos v ON v.id = p.video_id
    JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = p.platform || '/post' AND s.state = 'done'
    WHERE v.key = :key AND p.published_at IS NOT NULL
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--videos", type=int, default=20, help="how many, one after the other (20)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the pauses between them (1)")


def run(options: argparse.Namespace) -> Report:
    """For each video: make it, wait until it can be reviewed, click, and wait for its posts."""
    report = Report("approve", {"videos": options.videos, "call ms": CALL_SECONDS * 1000, "undo window s": 0})
    report.notes += [
        "settings are the product's defaults but for the undo window; posts go to the stand-ins of YouTube, TikTok and Instagram",
        "each video has accounts of its own, and the click comes 1 to 6 s after the video is ready, as a person's would",
    ]
    chance = random.Random(options.seed)
    clicks: list[float] = []
    took: list[float] = []
    firsts: list[float] = []
    with open_stack(seed=options.seed, module=STAND_INS, settings={"PHANTOMS_DESK_UNDO_SECONDS": "0"}) as stack:
        stack.bench.sandbox.fault("*", "latency", seconds=CALL_SECONDS)
        Users(stack.bench.services.engine).add(NAME, "reviewer", hash_password(PASSWORD), actor=Actor("benchmark", "cli"))
        with httpx.Client(base_url=stack.running.desk_url.rstrip("/"), trust_env=False, timeout=30) as person:
            _log_in(person)
            for number in range(options.videos):
                key = _ready(stack, number)
                form = _form(person, key)
                time.sleep(chance.uniform(1, 6))
                clicked = time.time()
                answer = person.post(f"/review/{key}/decide", data=form)
                clicks.append(time.time() - clicked)
                if answer.status_code != 303:
                    report.problems.append(f"the click on {key} was answered with {answer.status_code}: {answer.text[:300]}")
                    continue
                for count, times in ((1, firsts), (3, took)):
                    _wait(stack, key, count)
                    times.append(time.time() - clicked)
        posts = stack.bench.sandbox.ledger(kind="post")["entries"]
    for name, share, target in (("p50", 0.5, P50_SECONDS), ("p95", 0.95, P95_SECONDS)):
        found = percentile(took, share)
        report.check(f"click to all posts committed: {name} s", round(found, 2), f"< {target:g}", ok=bool(took) and found < target)
    report.tell("the slowest s", round(max(took, default=0), 2))
    report.tell("click to the first post committed: p50 s", round(percentile(firsts, 0.5), 2))
    report.tell("the click itself: p50, p95 ms", ", ".join(f"{1000 * percentile(clicks, share):.0f}" for share in (0.5, 0.95)))
    wanted = options.videos * 3
    report.check("posts at the stand-ins", len(posts), str(wanted), ok=len(posts) == wanted)
    return report


def _log_in(person: httpx.Client) -> None:
    form = {"_csrf": _csrf(person.get("/login").text), "name": NAME, "password": PASSWORD, "next": "/review"}
    answer = person.post("/login", data=form)
    assert answer.status_code == 303, answer.text


def _ready(stack: BenchStack, number: int) -> str:
    """Make a video that waits for its decision. Return its key."""
    [key] = stack.bench.add_videos(1, topic="Approve", register=False, first=number)
    decisions = stack.bench.services.decisions()
    wait_for(lambda: key in decisions.undecided(), seconds=MAX_WAIT_SECONDS, what=f"the review of {key}")
    return key


def _form(person: httpx.Client, key: str) -> dict[str, str]:
    """The form of the video's page, as the button *Approve* sends it."""
    page = person.get(f"/review/{key}")
    assert page.status_code == 200, page.text
    found = re.search(
        rf'<form method="post" action="/review/{re.escape(key)}/decide" data-approve>(.*?)</form>', page.text, re.DOTALL
    )
    assert found is not None, "the page has no form to decide with"
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', found[1])
    return {**{name: html.unescape(value) for name, value in hidden}, "_csrf": _csrf(page.text), "answer": "approve"}


def _csrf(page: str) -> str:
    found = re.search(r'data-csrf="([^"]+)"', page) or re.search(r'name="_csrf" value="([^"]+)"', page)
    assert found is not None, "the page has no token"
    return found[1]


def _wait(stack: BenchStack, key: str, count: int) -> None:
    """Wait until that many posts of the video are committed."""
    what = f"{count} posts of {key}"
    wait_for(lambda: stack.bench.rows(_POSTED, key=key)[0]["n"] >= count, seconds=MAX_WAIT_SECONDS, what=what, pause=LOOK_SECONDS)
