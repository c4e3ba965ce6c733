"""The runner on the real table: every way in which a video can leave a run, and what happens to the run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy.exc import IntegrityError

from phantoms_dagster.domain.claims import AttemptOutcome, Result, StageResult, StageTask
from phantoms_dagster.domain.errors import (
    Evidence,
    HumanRejection,
    InvalidInput,
    NotYet,
    Permanent,
    PhantomsError,
    Rejected,
    Throttled,
    Transient,
    Unknown,
)
from phantoms_dagster.domain.retry import RetryPolicy
from phantoms_dagster.domain.stages import stage
from phantoms_dagster.production import runner as runner_module
from phantoms_dagster.production.runner import StageRunner, UseCase
from phantoms_dagster.store.stage_store import PostgresStageStore
from phantoms_dagster_tests.integration.stage_world import PERSON, SENSOR, FakeClock, World, open_world, output_of

POLICY = RetryPolicy(attempts=3, backoff_seconds=2, backoff_max_seconds=900, max_wait_seconds=120, give_up_seconds=0)
SCRIPT_STAGE = stage("script")
MADE = StageResult(output_of("script"), Decimal("0.01"), "ref-1")
RESTARTS = 4


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


class Steps:
    """A use case that goes through a list: an error is raised, then the next try gets the next one, and at last it is made."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.tries = 0

    async def __call__(self, task: StageTask) -> StageResult:
        self.tries += 1
        if self._errors:
            raise self._errors.pop(0)
        return MADE


def runner(
    world: World,
    use_case: UseCase,
    clock: FakeClock | None = None,
    *,
    store: PostgresStageStore | None = None,
    owner: str = "runner",
    in_flight: int = 100,
    heartbeat_seconds: float = 20,
    policy: RetryPolicy = POLICY,
) -> StageRunner:
    return StageRunner(
        store=store or world.store(),
        use_cases={"script": use_case},
        clock=clock or FakeClock(),
        policy=policy,
        random=lambda: 1.0,
        new_owner=lambda: owner,
        in_flight=in_flight,
        heartbeat_seconds=heartbeat_seconds,
    )


async def run_one(world: World, *errors: Exception, clock: FakeClock | None = None) -> tuple[str, Result, Steps]:
    key, steps = world.add()[0], Steps(*errors)
    results = await runner(world, steps, clock).run(SCRIPT_STAGE, [key], PERSON)
    assert [result.key for result in results] == [key]
    return key, results[0], steps


def transient(**more: object) -> Transient:
    return Transient("overloaded", provider="llm", code="503", **more)  # type: ignore[arg-type]


async def test_a_video_that_is_made_is_recorded_with_its_output_cost_and_reference(world: World) -> None:
    key, result, _ = await run_one(world)
    assert (result.outcome, result.output, result.cost, result.fresh) == ("done", MADE.output, Decimal("0.01"), True)
    row = world.row(key, "script")
    assert (row["state"], row["provider_ref"], row["cost"], row["attempts"]) == ("done", "ref-1", Decimal("0.01"), 0)
    assert (row["lease_owner"], row["lease_until"], row["run_id"]) == (None, None, PERSON.run_id)
    assert [(a["state"], a["cost"], a["provider_ref"]) for a in world.attempts(key, "script")] == [
        ("done", Decimal("0.01"), "ref-1")
    ]
    assert world.row(key, "voiceover")["state"] == "ready"


async def test_a_done_video_is_not_made_again(world: World) -> None:
    key, first, _ = await run_one(world)
    steps = Steps()
    again = (await runner(world, steps).run(SCRIPT_STAGE, [key], PERSON))[0]
    assert (again.outcome, again.output, again.fresh, steps.tries) == ("done", first.output, False, 0)


async def test_a_regenerated_video_is_made_again_as_a_new_revision(world: World) -> None:
    key, _, _ = await run_one(world)
    steps = Steps()
    other = replace(PERSON, run_id="another-run")
    again = (await runner(world, steps).run(SCRIPT_STAGE, [key], other, regenerate=True))[0]
    assert (again.outcome, again.fresh, steps.tries) == ("done", True, 1)
    assert world.row(key, "script")["revision"] == 2


async def test_a_passing_error_is_tried_again_after_a_back_off_that_doubles(world: World) -> None:
    clock = FakeClock()
    key, result, steps = await run_one(world, transient(), transient(), clock=clock)
    assert (result.outcome, steps.tries, clock.slept) == ("done", 3, [2.0, 4.0])
    assert [(a["state"], a["error_class"]) for a in world.attempts(key, "script")] == [
        ("deferred", "transient"),
        ("deferred", "transient"),
        ("done", None),
    ]
    assert world.row(key, "script")["attempts"] == 2


async def test_the_next_attempt_is_in_the_table_before_the_wait_begins(world: World) -> None:
    seen: list[list[str]] = []

    class Watching(FakeClock):
        async def sleep(self, seconds: float) -> None:
            seen.append([a["state"] for a in world.attempts(key, "script")])
            await super().sleep(seconds)

    key = world.add()[0]
    await runner(world, Steps(transient()), Watching()).run(SCRIPT_STAGE, [key], PERSON)
    assert seen == [["deferred", "intent"]]


async def test_when_the_attempts_are_used_up_the_video_fails_with_a_dead_letter_of_them_all(world: World) -> None:
    key, result, steps = await run_one(world, *(transient() for _ in range(9)))
    assert (result.outcome, result.error_class, result.message, steps.tries) == ("failed", "transient", "overloaded", 3)
    letter = world.letters(key)[0]
    assert (letter["code"], letter["provider"], len(letter["attempts"])) == ("503", "llm", 3)
    assert world.row(key, "script")["attempts"] == 3


async def test_attempts_are_counted_across_runs_until_a_person_retries(world: World) -> None:
    key = world.add()[0]
    await runner(world, Steps(transient(), transient(retry_after=500))).run(SCRIPT_STAGE, [key], PERSON)
    assert (world.row(key, "script")["state"], world.row(key, "script")["attempts"]) == ("deferred", 2)
    result = (await runner(world, Steps(transient())).run(SCRIPT_STAGE, [key], PERSON))[0]
    assert result.outcome == "failed"
    steps = Steps(transient(), transient())
    assert (await runner(world, steps).run(SCRIPT_STAGE, [key], PERSON))[0].outcome == "done"


async def test_being_throttled_costs_no_attempt_however_often(world: World) -> None:
    clock = FakeClock()
    waits = [Throttled("slow down", provider="llm", retry_after=10) for _ in range(8)]
    key, result, steps = await run_one(world, *waits, clock=clock)
    assert (result.outcome, steps.tries, clock.slept) == ("done", 9, [12.0] * 8)
    assert world.row(key, "script")["attempts"] == 0


async def test_a_wait_longer_than_the_patience_is_written_down_and_holds_no_process(world: World) -> None:
    clock = FakeClock()
    before = clock.now()
    key, result, _ = await run_one(world, Throttled("quota used up", provider="llm", retry_after=3600), clock=clock)
    assert (result.outcome, result.message, clock.slept) == ("deferred", "quota used up", [])
    assert result.retry_at == before + timedelta(seconds=3602)
    row = world.row(key, "script")
    assert (row["state"], row["retry_at"], row["reason"], row["lease_owner"]) == (
        "deferred",
        result.retry_at,
        "quota used up",
        None,
    )
    assert (row["attempts"], world.letters(key)) == (0, [])


async def test_a_run_of_the_sensors_does_not_wait_for_another_run_that_holds_the_account(world: World) -> None:
    """The other run may be dead and may need the worker that this one keeps. Both waited until the lease was over."""
    [key], steps, clock = world.add(), Steps(NotYet("busy", retry_after=5, held=True)), FakeClock()
    before = clock.now()
    [result] = await runner(world, steps, clock).run(SCRIPT_STAGE, [key], SENSOR)
    assert (result.outcome, result.retry_at, clock.slept) == ("deferred", before + timedelta(seconds=5), [])
    row = world.row(key, "script")
    assert (row["state"], row["attempts"], row["lease_owner"]) == ("deferred", 0, None)


async def test_a_persons_run_waits_for_another_run_as_long_as_it_has_patience(world: World) -> None:
    clock = FakeClock()
    _, result, _ = await run_one(world, NotYet("busy", retry_after=5, held=True), clock=clock)
    assert (result.outcome, clock.slept) == ("done", [5])


async def test_a_video_whose_time_has_not_come_is_deferred_until_that_very_time(world: World) -> None:
    until = datetime(2030, 1, 1, 9, tzinfo=UTC)
    key, result, _ = await run_one(world, NotYet("goes out later", retry_after=1, until=until))
    assert (result.outcome, result.retry_at, world.row(key, "script")["retry_at"]) == ("deferred", until, until)


@pytest.mark.parametrize(
    ("error", "error_class"),
    [
        (Permanent("bad key", provider="llm", code="401", evidence=Evidence(status=401)), "permanent"),
        (Rejected("against the policy", provider="llm", code="401", evidence=Evidence(status=401)), "rejected"),
    ],
)
async def test_what_will_never_work_is_a_dead_letter_at_once(world: World, error: Exception, error_class: str) -> None:
    key, result, steps = await run_one(world, error)
    assert (result.outcome, result.error_class, steps.tries) == ("failed", error_class, 1)
    letter = world.letters(key)[0]
    assert (letter["error_class"], letter["code"], letter["evidence"]) == (error_class, "401", {"status": 401})


async def test_an_error_of_ours_and_not_of_a_provider_fails_as_permanent(world: World) -> None:
    _, result, _ = await run_one(world, InvalidInput("no such voice"))
    assert (result.outcome, result.error_class, result.message) == ("failed", "permanent", "no such voice")


async def test_a_bug_fails_the_video_as_internal_and_keeps_what_it_said(world: World) -> None:
    key, result, _ = await run_one(world, ZeroDivisionError("division by zero"))
    assert (result.outcome, result.error_class, result.message) == ("failed", "internal", "ZeroDivisionError: division by zero")
    assert world.letters(key)[0]["code"] == "ZeroDivisionError"


async def test_a_no_of_the_reviewer_is_an_ending_and_no_dead_letter(world: World) -> None:
    key, result, _ = await run_one(world, HumanRejection("rejected by ann: too loud"))
    assert (result.outcome, result.message) == ("rejected", "rejected by ann: too loud")
    assert world.row(key, "script")["state"] == "rejected"
    assert not world.letters(key)


async def test_an_unknown_outcome_is_read_back_later_each_time_and_costs_no_attempt(world: World) -> None:
    clock = FakeClock()
    unknowns = [Unknown("the answer was lost", provider="llm") for _ in range(3)]
    key, result, _ = await run_one(world, transient(), *unknowns, clock=clock)
    assert clock.slept == [2.0, 30.0, 60.0]
    assert (result.outcome, result.retry_at, world.row(key, "script")["attempts"]) == (
        "deferred",
        clock.now() + timedelta(seconds=120),
        1,
    )


async def test_the_read_backs_of_an_unknown_outcome_go_on_growing_in_the_next_run(world: World) -> None:
    def lost() -> Unknown:
        return Unknown("the answer was lost", provider="llm")

    key, first, _ = await run_one(world, lost(), lost(), lost())
    assert first.outcome == "deferred"
    clock = FakeClock()
    again = (await runner(world, Steps(lost()), clock).run(SCRIPT_STAGE, [key], PERSON))[0]
    assert (clock.slept, again.outcome, again.retry_at) == ([], "deferred", clock.now() + timedelta(seconds=240))


async def test_one_videos_failure_is_not_the_others(world: World) -> None:
    keys = world.add(3)

    async def use_case(task: StageTask) -> StageResult:
        if task.video.key == keys[1]:
            raise Permanent("bad input", provider="llm")
        return MADE

    heard: list[str] = []
    results = await runner(world, use_case).run(SCRIPT_STAGE, keys, PERSON, on_result=lambda r: heard.append(r.key))
    assert [(r.key, r.outcome) for r in results] == list(zip(keys, ("done", "failed", "done"), strict=True))
    assert sorted(heard) == sorted(keys)


async def test_results_come_in_the_order_of_the_keys_once_each_also_for_what_was_left_alone(world: World) -> None:
    keys = world.add(2)
    await world.carry(keys[:1], "script")
    wanted = ["nothing", keys[1], keys[0], keys[1]]
    steps = Steps()
    results = await runner(world, steps).run(SCRIPT_STAGE, wanted, PERSON)
    assert [(r.key, r.outcome, r.fresh) for r in results] == [
        ("nothing", "failed", False),
        (keys[1], "done", True),
        (keys[0], "done", False),
    ]
    assert steps.tries == 1


async def test_on_result_hears_of_a_video_only_when_its_ending_is_in_the_table(world: World) -> None:
    key = world.add()[0]
    seen: list[str] = []
    await runner(world, Steps()).run(
        SCRIPT_STAGE, [key], PERSON, on_result=lambda r: seen.append(world.row(r.key, "script")["state"])
    )
    assert seen == ["done"]


async def test_a_runner_that_slept_through_its_lease_reports_stale_and_changes_nothing(world: World) -> None:
    key = world.add()[0]

    async def slow(task: StageTask) -> StageResult:
        world.let_leases_expire()
        assert (await runner(world, Steps(), owner="second").run(SCRIPT_STAGE, [key], SENSOR))[0].outcome == "done"
        raise Permanent("too late", provider="llm")

    result = (await runner(world, slow, owner="first").run(SCRIPT_STAGE, [key], SENSOR))[0]
    assert (result.outcome, world.row(key, "script")["state"]) == ("stale", "done")
    assert not world.letters(key)


async def test_a_stale_runner_stops_at_its_next_attempt(world: World) -> None:
    key = world.add()[0]
    tries = 0

    async def slow(task: StageTask) -> StageResult:
        nonlocal tries
        tries += 1
        world.let_leases_expire()
        await world.claimed("script", key, owner="second", context=SENSOR)
        raise transient()

    clock = FakeClock()
    result = (await runner(world, slow, clock, owner="first").run(SCRIPT_STAGE, [key], SENSOR))[0]
    assert (result.outcome, tries, clock.slept) == ("stale", 1, [])


async def test_a_run_that_is_stopped_gives_back_what_it_holds_and_keeps_what_it_made(world: World) -> None:
    keys = world.add(4)
    made = asyncio.Event()

    async def use_case(task: StageTask) -> StageResult:
        if task.video.key == keys[0]:
            return MADE
        await asyncio.Event().wait()
        raise AssertionError

    def on_result(_: Result) -> None:
        made.set()

    run = asyncio.create_task(runner(world, use_case).run(SCRIPT_STAGE, keys, PERSON, on_result=on_result))
    await made.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert world.states("script") == ["done", "deferred", "deferred", "deferred"]
    assert world.row(keys[1], "script")["reason"] == "the run was stopped"
    assert [a["state"] for a in world.attempts(keys[1], "script")] == ["abandoned"]
    again = await runner(world, Steps(), owner="second").run(SCRIPT_STAGE, keys, SENSOR)
    assert [(r.outcome, r.fresh) for r in again] == [("done", False), *[("done", True)] * 3]
    assert [world.row(key, "script")["attempts"] for key in keys] == [0] * 4


class Broken(PostgresStageStore):
    """A store whose outcomes cannot be written."""

    async def finish(self, claim: object, outcome: AttemptOutcome) -> bool:
        raise IntegrityError("finish", None, Exception("no"))


async def test_a_run_whose_store_gives_up_fails_and_hands_its_claims_back(world: World) -> None:
    keys = world.add(2)
    broken = Broken(world.async_engine, lease_seconds=60)
    with pytest.raises(IntegrityError):
        await runner(world, Steps(), store=broken).run(SCRIPT_STAGE, keys, PERSON)
    assert world.states("script") == ["deferred", "deferred"]


async def test_a_heartbeat_renews_the_lease_while_a_video_takes_its_time(world: World) -> None:
    key = world.add()[0]

    async def slow(task: StageTask) -> StageResult:
        world.let_leases_expire()
        async with asyncio.timeout(30):
            await store.renewed.wait()
        assert world.row(key, "script")["lease_until"] > datetime.now(UTC)
        return MADE

    class Telling(PostgresStageStore):
        renewed = asyncio.Event()

        async def heartbeat(self, owner: str) -> None:
            await super().heartbeat(owner)
            if world.row(key, "script")["lease_until"] > datetime.now(UTC):
                self.renewed.set()

    store = Telling(world.async_engine, lease_seconds=60)
    result = (await runner(world, slow, store=store, heartbeat_seconds=0.02).run(SCRIPT_STAGE, [key], PERSON))[0]
    assert result.outcome == "done"


async def test_the_end_of_a_run_waits_for_a_heartbeat_that_is_under_way_instead_of_cancelling_it(world: World) -> None:
    """A statement that was cancelled could take its connection with it."""
    begun, ended = asyncio.Event(), asyncio.Event()

    class Slow(PostgresStageStore):
        async def heartbeat(self, owner: str) -> None:
            begun.set()
            await asyncio.sleep(0.05)
            await super().heartbeat(owner)
            ended.set()

    async def until_the_heart_beats(task: StageTask) -> StageResult:
        async with asyncio.timeout(30):
            await begun.wait()
        return MADE

    key = world.add()[0]
    store = Slow(world.async_engine, lease_seconds=60)
    run = runner(world, until_the_heart_beats, store=store, heartbeat_seconds=0.01).run(SCRIPT_STAGE, [key], PERSON)
    assert (await run)[0].outcome == "done"
    assert ended.is_set()


async def test_a_heartbeat_that_swallows_its_cancellation_does_not_keep_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11's `wait_for` can do that. The run had done its work, and never ended."""
    monkeypatch.setattr(runner_module, "HEART_SECONDS", 0.05)
    begun, let_go = asyncio.Event(), asyncio.Event()

    class Stubborn(PostgresStageStore):
        async def heartbeat(self, owner: str) -> None:
            begun.set()
            while not let_go.is_set():
                with suppress(asyncio.CancelledError):
                    await let_go.wait()

    async def until_the_heart_beats(task: StageTask) -> StageResult:
        async with asyncio.timeout(30):
            await begun.wait()
        return MADE

    key = world.add()[0]
    store = Stubborn(world.async_engine, lease_seconds=60)
    run = runner(world, until_the_heart_beats, store=store, heartbeat_seconds=0.01).run(SCRIPT_STAGE, [key], PERSON)
    async with asyncio.timeout(30):
        assert (await run)[0].outcome == "done"
    let_go.set()


async def test_a_heartbeat_that_fails_does_not_end_the_run(world: World) -> None:
    twice = asyncio.Semaphore(0)

    class Deaf(PostgresStageStore):
        async def heartbeat(self, owner: str) -> None:
            twice.release()
            raise OSError("no database")

    async def slow(task: StageTask) -> StageResult:
        async with asyncio.timeout(30):
            await twice.acquire()
            await twice.acquire()
        return MADE

    key = world.add()[0]
    store = Deaf(world.async_engine, lease_seconds=60)
    assert (await runner(world, slow, store=store, heartbeat_seconds=0.01).run(SCRIPT_STAGE, [key], PERSON))[0].outcome == "done"


async def test_two_hundred_videos_are_worked_on_at_once_but_never_more_than_may_be_in_flight(world: World) -> None:
    keys = world.add(200)
    now = most = 0

    async def use_case(task: StageTask) -> StageResult:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await task.attempt.received({"id": task.attempt.id})
        now -= 1
        return MADE

    results = await runner(world, use_case, in_flight=32).run(SCRIPT_STAGE, keys, PERSON)
    assert [r.outcome for r in results] == ["done"] * 200
    assert most == 32
    assert world.states("script") == ["done"] * 200
    assert {a["state"] for a in world.rows("SELECT state FROM phantoms.attempts")} == {"done"}


def cut_connections(world: World) -> int:
    """As a restarting server does: end every other session of this database. How many there were."""
    statement = """SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    return int(world.rows(statement)[0]["n"])


async def test_a_run_survives_that_all_its_connections_are_cut_again_and_again(world: World) -> None:
    keys = world.add(200)
    cut: list[int] = []

    async def use_case(task: StageTask) -> StageResult:
        place = keys.index(task.video.key)
        await task.attempt.received({"n": place})
        if place % 50 == 25 and task.claim.attempts_used == 0:
            cut.append(await asyncio.to_thread(cut_connections, world))
        if place % 7 == 0 and task.claim.attempts_used == 0:
            raise transient()
        return MADE

    results = await runner(world, use_case, in_flight=40, heartbeat_seconds=0.05).run(SCRIPT_STAGE, keys, PERSON)
    assert len(cut) == RESTARTS
    assert sum(cut) > 0
    assert [r.outcome for r in results] == ["done"] * 200
    assert world.states("script") == ["done"] * 200
    assert world.states("voiceover") == ["ready"] * 200
    counted = [
        row["attempts"] for row in world.rows("SELECT attempts FROM phantoms.stages WHERE stage = 'script' ORDER BY video_id")
    ]
    assert counted == [int(n % 7 == 0) for n in range(200)]


async def test_every_provider_error_ends_in_one_of_the_endings_and_leaves_no_lease(world: World) -> None:
    makers: list[Callable[[], PhantomsError]] = [
        lambda: transient(retry_after=9e9),
        lambda: Throttled("t", provider="p", retry_after=float("inf")),
        lambda: Unknown("u", provider="p", retry_after=9e9),
        lambda: NotYet("n", retry_after=1e6),
        lambda: Permanent("", provider="p"),
    ]
    keys = world.add(len(makers))

    async def use_case(task: StageTask) -> StageResult:
        raise makers[keys.index(task.video.key)]()

    results = await runner(world, use_case, policy=replace(POLICY, max_wait_seconds=0)).run(SCRIPT_STAGE, keys, PERSON)
    assert [r.outcome for r in results] == [*["deferred"] * 4, "failed"]
    leases = world.rows("SELECT 1 FROM phantoms.stages WHERE lease_owner IS NOT NULL OR state = 'running'")
    assert leases == []
