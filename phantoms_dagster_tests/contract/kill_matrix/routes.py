"""The routes of the matrix: how a post goes out on each, and what does not apply to it, with the reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.provider_events import signed
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.media import local_renderer
from phantoms_dagster.platforms.folder.publisher import FACTS, FolderPublisher
from phantoms_dagster.platforms.tiktok import chunks as tiktok_chunks
from phantoms_dagster.providers.shotstack.events import callback_query
from phantoms_dagster.registry.platforms import SPECS
from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.tiktok import state as tiktok_state
from phantoms_dagster_tests.contract import paid_world
from phantoms_dagster_tests.contract import test_publication_kills as kills
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal, MortalTransport, SandboxClock, SandboxTokens
from phantoms_dagster_tests.contract.test_folder import make_job
from phantoms_dagster_tests.contract.test_provider_events import Receiver

Case = kills.Posting | paid_world.Paid
VERBS = ("open", "upload", "commit", "find", "confirm")
PAID_VERBS = ("submit", "find", "status", "fetch")
DAY = 90_000.0
BEFORE_SAVE = "killed before the journal's commit"
AFTER_SAVE = "killed after the journal's commit"
ON_SAVES = (BEFORE_SAVE, AFTER_SAVE)
EVENT_LATE = "killed, and the events come a day late"


def expire_token(case: kills.Posting, tokens: SandboxTokens) -> None:
    """The account's first token has reached the end of its life, and another one is to be had."""
    name = f"{case.job.platform} {tokens.prefix}{case.job.account}"
    case.sandbox.state.setdefault("tokens", {})[name] = case.sandbox.now() - DAY
    case.sandbox.config[f"{case.job.platform}.token_seconds"] = DAY


def expire_sessions(case: kills.Posting, tokens: SandboxTokens) -> None:
    """Bluesky's app passwords do not expire, but the sessions that are made with them."""
    for session in case.sandbox.state["bluesky"].sessions.values():
        session.made_at -= DAY


@dataclass(frozen=True)
class MatrixRoute:
    """One way on which a post goes out, or a render is made.

    - `opened` opens its sandbox, with what receives its events.
    - `deciding`: the verb whose request publishes, or costs money. `decisive`: whether a request is that one.
    - `silent`: the verbs that send no request, each with the reason.
    - `unreachable`: by verb, faults that cannot strike there, with the reason.
    - `session`, `tokens`, `events`, `clocks`: why it has none. Empty if it has them.
    - `send_events` lets its events come: in an order, several times. `expire` ends the life of its token.
    - `person`: why a person takes part on this route even if nothing fails.
    """

    title: str
    opened: Callable[[Path, Receiver], AbstractAsyncContextManager[Any]]
    verbs: tuple[str, ...] = VERBS
    deciding: str = "commit"
    decisive: Callable[[httpx.Request], bool] = lambda _: True
    silent: dict[str, str] = field(default_factory=dict)
    unreachable: dict[str, dict[str, str]] = field(default_factory=dict)
    session: str = ""
    tokens: str = ""
    events: str = ""
    clocks: str = ""
    send_events: Callable[[Any, Receiver, str, int], Any] | None = None
    expire: Callable[[kills.Posting, SandboxTokens], None] = expire_token
    person: str = ""

    @property
    def requests(self) -> bool:
        """Whether it is a service that answers requests."""
        return set(self.silent) != set(self.verbs)


@dataclass
class InFolder(kills.Posting):
    """A post into a folder. The folder itself tells what is there."""

    outbox: Path = Path()

    def assert_once(self, journal: FakeJournal) -> None:
        """There is one folder with the whole post, and the ledger names it."""
        [place] = [path for path in self.outbox.glob("*/*") if not path.name.startswith(".")]
        assert json.loads((place / FACTS).read_text(encoding="utf-8"))["sha256"] == self.job.sha256
        remote_id = f"{place.parent.name}/{place.name}"
        assert (journal.record.state, journal.record.remote_id) == (PostState.CONFIRMED, remote_id)


@asynccontextmanager
async def in_folder(folder: Path) -> AsyncIterator[InFolder]:
    sandbox = Sandbox(seed=1)
    clock = SandboxClock(sandbox)
    publisher = FolderPublisher(folder / "outbox", clock=clock)
    yield InFolder(
        sandbox, MortalTransport(), clock, lambda: publisher, make_job(folder), lambda: None, None, outbox=folder / "outbox"
    )


async def from_stand_in(case: kills.Posting, receiver: Receiver, order: str, copies: int) -> None:
    """The stand-in sends what has happened since the last time, as the service proves its origin."""
    await case.sandbox.webhooks.release(order=order, copies=copies)


async def from_meta(case: kills.Posting, receiver: Receiver, order: str, copies: int) -> None:
    """Meta has no event for posts, so two events about the account's comments come, signed as Meta signs them."""
    bodies = [json.dumps({"object": "instagram", "entry": [{"id": "17", "time": case.sandbox.now() + n}]}).encode() for n in (0, 1)]
    if order == "reversed":
        bodies.reverse()
    async with httpx.AsyncClient(verify=False) as client:
        for body in [body for body in bodies for _ in range(copies)]:
            headers = {"X-Hub-Signature-256": f"sha256={signed(body, receiver.secrets.secret)}"}
            await client.post(f"{receiver.url}/instagram", content=body, headers=headers)


NO_EVENTS = "{} sends no events of posts"
_CONFIRMED = "TikTok's `PUBLISH_COMPLETE` was the confirmation, so it sends no request"
_ONLY_CHUNK = "the only chunk is the one that decides, so nothing is sent before `commit`"
_SAVED_BY_FIND = "`find` saves what became of the last chunk"
_SAVES = {"commit": dict.fromkeys(ON_SAVES, _SAVED_BY_FIND)}
_CHUNKS: dict[str, Any] = {"silent": {"confirm": _CONFIRMED}, "unreachable": _SAVES, "send_events": from_stand_in}
_ONE_CHUNK = {**_CHUNKS, "silent": {"upload": _ONLY_CHUNK, "confirm": _CONFIRMED}}
CREATOR = "the creator finishes the draft in the app: that is what this route is"
_GATEWAY: dict[str, Any] = {
    "silent": {
        "upload": "the file goes with the request that decides, so nothing is sent before `commit`",
        "confirm": "the status `completed` was the confirmation, so it sends no request",
    },
    "unreachable": {"commit": dict.fromkeys(ON_SAVES, "`find` saves what became of the request")},
    "session": "Upload-Post has no sessions",
    "tokens": "the key of Upload-Post does not expire",
    "send_events": from_stand_in,
}
KNOWN: dict[str, dict[str, Any]] = {
    "youtube": {"title": "YouTube", "events": NO_EVENTS.format("YouTube")},
    "tiktok": {"title": "TikTok, direct post in several chunks", **_CHUNKS},
    "tiktok in one chunk": {"title": "TikTok, direct post in one chunk", **_ONE_CHUNK},
    "tiktok inbox": {"title": "TikTok, draft in several chunks", "person": CREATOR, **_CHUNKS},
    "tiktok inbox in one chunk": {"title": "TikTok, draft in one chunk", "person": CREATOR, **_ONE_CHUNK},
    "tiktok gateway": {"title": "TikTok, through Upload-Post", **_GATEWAY},
    "tiktok gateway that lags": {"title": "TikTok, through Upload-Post with a late status", **_GATEWAY},
    "tiktok gateway that fails at first": {
        "title": "TikTok, through Upload-Post after a failure that passed",
        **_GATEWAY,
    },
    "instagram": {"title": "Instagram", "send_events": from_meta},
    "bluesky": {"title": "Bluesky", "events": NO_EVENTS.format("Bluesky"), "expire": expire_sessions},
}
NO_SERVICE = "a folder is no service: it has no {}"


def _without_receiver(opened: Callable[[Path], Any], folder: Path, _receiver: Receiver) -> Any:
    return opened(folder)


ROUTES: dict[str, MatrixRoute] = {
    # A platform that a helper module brings (`contract/<name>_world.py`) is here with its defaults.
    name: MatrixRoute(
        opened=partial(_without_receiver, opened),
        decisive=kills.DECISIVE[name],
        **KNOWN.get(name, {"title": name, "events": NO_EVENTS.format(name)}),
    )
    for name, (opened, _, _) in kills.PLATFORMS.items()
} | {
    "folder": MatrixRoute(
        title="Folder",
        opened=partial(_without_receiver, in_folder),
        silent=dict.fromkeys(VERBS, NO_SERVICE.format("requests")),
        session=NO_SERVICE.format("sessions"),
        tokens=NO_SERVICE.format("tokens"),
        events=NO_SERVICE.format("events"),
    )
}


# --- paid renders


def with_callbacks(folder: Path, receiver: Receiver) -> Any:
    """Shotstack, which calls our receiver back."""

    async def named(attempt_id: str) -> Sequence[str]:
        return [one.remote_id for one in receiver.events if one.attempt_id == attempt_id and one.remote_id]

    def callback(attempt_id: str) -> str:
        return f"{receiver.url}/shotstack?{callback_query(attempt_id, receiver.secrets.token(attempt_id))}"

    return paid_world.shotstack(folder, callback=callback, named=named)


async def from_shotstack(case: paid_world.Paid, receiver: Receiver, order: str, copies: int) -> None:
    """The stand-in calls back about the renders that have ended."""
    renders = case.sandbox.state["shotstack"].renders.values()
    while any(render.finished is None for render in renders):  # noqa: ASYNC110 - the stand-in's own tasks
        await asyncio.sleep(0.001)
    await case.sandbox.webhooks.release(order=order, copies=copies)


_PAID: dict[str, Any] = {
    "verbs": PAID_VERBS,
    "deciding": "submit",
    "tokens": "its key does not expire",
    "clocks": "the renderer uses no time of the service: Phantoms waits by the clock of its own database",
}
_SAVED_AFTER_FETCH = {"status": dict.fromkeys(ON_SAVES, "the state is saved after `fetch`")}
_THIS_MACHINE = "nothing on this machine has {}"
PAID_ROUTES: dict[str, MatrixRoute] = {
    "shotstack": MatrixRoute(
        title="Shotstack",
        opened=partial(_without_receiver, paid_world.shotstack),
        decisive=paid_world.bills,
        silent={"find": "Shotstack lists no renders, so without a callback there is nothing to ask"},
        unreachable=_SAVED_AFTER_FETCH,
        events="it has no address of ours on this route",
        **_PAID,
    ),
    "shotstack with callbacks": MatrixRoute(
        title="Shotstack with callbacks",
        opened=with_callbacks,
        decisive=paid_world.bills,
        unreachable={**_SAVED_AFTER_FETCH, "find": {EVENT_LATE: "before a callback has come, `find` sends no request"}},
        send_events=from_shotstack,
        **_PAID,
    ),
    "local": MatrixRoute(
        title="This machine",
        opened=partial(_without_receiver, paid_world.local),
        silent=dict.fromkeys(PAID_VERBS, _THIS_MACHINE.format("requests")),
        unreachable=_SAVED_AFTER_FETCH,
        events=_THIS_MACHINE.format("events"),
        **{**_PAID, "tokens": _THIS_MACHINE.format("a key")},
    ),
}


ALL_ROUTES = ROUTES | PAID_ROUTES


def uncovered() -> set[str]:
    """The registered platforms that no route of the matrix posts on."""
    return {str(platform) for platform in map(Platform, SPECS)} - {name.partition(" ")[0] for name in ROUTES}


@contextmanager
def small_chunks() -> Iterator[None]:
    """Chunks of 50 kB on both sides, and no ffmpeg. The real least is 5 MB: each cell would write and hash a file of 15 MB."""
    with (
        mock.patch.object(tiktok_chunks, "ONE_CHUNK_BYTES", 80 * kills.KB),
        mock.patch.object(tiktok_chunks, "CHUNK_BYTES", 50 * kills.KB),
        mock.patch.object(tiktok_state, "MIN_CHUNK_BYTES", 50 * kills.KB),
        mock.patch.object(local_renderer, "render", paid_world.quick_render),
    ):
        yield
