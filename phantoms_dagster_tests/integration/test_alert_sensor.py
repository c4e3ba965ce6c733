"""The alert sensor, the checks and the summary, against real servers and a real receiver of Apprise's notifications."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import httpx
import pytest
from sqlalchemy import text

from phantoms_dagster.defs.alerts import SummaryConfig, alert_sensor, daily_summary_job, make_daily_summary_schedule
from phantoms_dagster.defs.build import build_definitions
from phantoms_dagster.defs.checks import ChecksLeftResource, dead_letters_sensor
from phantoms_dagster.domain.claims import StageResult, StageTask
from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.retry import RetryPolicy
from phantoms_dagster.domain.stages import STAGES, stage
from phantoms_dagster.platforms.instagram.api import judge
from phantoms_dagster.platforms.tiktok.api import TikTokCalls
from phantoms_dagster.platforms.youtube.api import YouTubeCalls
from phantoms_dagster.production.runner import StageRunner
from phantoms_dagster.providers.shotstack.renderer import ShotstackRenderer
from phantoms_dagster.resilience.breakers.breaker import CallOutcome
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.dead_letters.letters import DeadLetters, LetterFilter
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.watching import watching
from phantoms_dagster_tests.integration.stage_world import PERSON, World, open_world

# One of Apprise's plugins looks for imghdr, which says that it will go.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")

PASSWORD = "h00k-5ecr3t"
TOKEN = "ya29.5ecr3tT0ken"


class Receiver:
    """An HTTP server that takes notifications and, as a provider, refuses everything and repeats the token while it does so."""

    def __init__(self) -> None:
        self.got: list[dict[str, str]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path.startswith("/hook"):
                    if receiver.status == 200:
                        receiver.got.append(json.loads(body))
                    self._answer(receiver.status, b"{}")
                else:
                    self._refuse()

            def do_GET(self) -> None:
                self._refuse()

            def _refuse(self) -> None:
                said = f"Bearer {TOKEN} was refused, see https://x.example/?access_token={TOKEN}&a=b"
                error = {"code": "scope_not_authorized", "message": said, "errors": [{"reason": "forbidden"}]}
                self._answer(403, json.dumps({"error": error, "message": said, "access_token": TOKEN}).encode())

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Request-Id", f"access_token={TOKEN}")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quietly."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.hook = f"json://ann:{PASSWORD}@127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
def settings(database_url: str, redis_url: str, receiver: Receiver) -> Settings:
    return Settings(database={"url": database_url}, redis={"url": redis_url}, alerts={"urls": [receiver.hook], "minutes": 0})


@pytest.fixture
def heard() -> Iterator[list[logging.LogRecord]]:
    """What a process's own handlers are given; pytest's listen at each logger that does not propagate."""
    records: list[logging.LogRecord] = []

    class Ears(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    ears = Ears()
    logging.getLogger().addHandler(ears)
    yield records
    logging.getLogger().removeHandler(ears)


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    made = Services(settings)
    yield made
    made.close()


def dead(
    world: World, count: int = 1, *, name: str = "script", provider: str = "shotstack", message: str = "answered 503"
) -> list[str]:
    """Videos that failed in that stage."""
    keys = world.add(count)
    world.write(
        """UPDATE phantoms.stages SET state = 'failed' WHERE stage = :stage
            AND video_id IN (SELECT id FROM phantoms.videos WHERE key = ANY(:keys))""",
        stage=name,
        keys=keys,
    )
    world.write(
        """INSERT INTO phantoms.dead_letters (video_id, stage, revision, provider, error_class, message, attempts)
            SELECT id, :stage, 1, :provider, 'transient', :message, '[]' FROM phantoms.videos WHERE key = ANY(:keys)""",
        stage=name,
        keys=keys,
        provider=provider,
        message=message,
    )
    return keys


def tick(settings: Settings, cursor: str | None = None) -> tuple[str, str | None]:
    """One evaluation, as the daemon does it: what it says and the cursor it leaves."""
    services = Services(settings)
    try:
        with dg.build_sensor_context(cursor=cursor, resources={"services": services}) as context:
            answer = alert_sensor(context)
            assert isinstance(answer, dg.SkipReason)
            return answer.skip_message or "", context.cursor
    finally:
        services.close()


async def ticked(settings: Settings, cursor: str | None = None) -> tuple[str, str | None]:
    return await asyncio.to_thread(tick, settings, cursor)


async def failing(settings: Settings, integration: str = "shotstack") -> None:
    """As many failed calls as open its breaker."""
    async with watching(settings) as watcher:
        for _ in range(settings.breakers.minimum_calls):
            try:
                leave = await watcher.breakers.admit(integration)
            except PhantomsError:
                return
            await watcher.breakers.settle(leave, CallOutcome.FAILED)


async def test_three_hundred_letters_and_a_breaker_are_one_message_with_the_commands_to_run(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    keys = dead(world, 300)
    dead(world, 2, name="voiceover", provider="voice")
    await failing(settings)
    said, cursor = await ticked(settings)
    assert said == "sent 1: Phantoms: 302 new dead letters, 1 breaker opened"
    [message] = receiver.got
    assert message["title"] == "Phantoms: 302 new dead letters, 1 breaker opened"
    assert message["type"] == "warning"
    lines = message["message"].splitlines()
    assert lines[0] == "300 x script: transient at shotstack"
    assert keys[-1] in lines[2]
    assert "and 297 more" in lines[2]
    assert any(line.startswith("breaker shotstack opened at 20") and line.endswith("(now open)") for line in lines)
    assert "phantoms dead-letters replay --stage script --class transient --provider shotstack" in lines
    assert (await ticked(settings, cursor))[0] == "nothing new"
    assert len(receiver.got) == 1


async def test_only_news_since_the_last_tick_is_sent(world: World, settings: Settings, receiver: Receiver) -> None:
    dead(world, 2)
    _, cursor = await ticked(settings)
    new = dead(world, 1, provider="openai")
    said, cursor = await ticked(settings, cursor)
    assert said == "sent 1: Phantoms: 1 new dead letter"
    assert new[0] in receiver.got[1]["message"]
    assert "shotstack" not in receiver.got[1]["message"]
    DeadLetters(world.engine).replay(LetterFilter(), by="ann")
    assert (await ticked(settings, cursor))[0] == "nothing new"


async def test_an_account_whose_fault_has_no_known_beginning_makes_one_alert(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    world.write(
        "INSERT INTO phantoms.accounts (platform, name, state, reason) VALUES ('youtube', 'old', 'unauthorized', 'reconnect')"
    )
    said, cursor = await ticked(settings)
    assert said == "sent 1: Phantoms: 1 account stopped working"
    for _ in range(2):
        said, cursor = await ticked(settings, cursor)
        assert said == "nothing new"
    assert len(receiver.got) == 1


async def test_an_account_that_cannot_post_makes_one_alert(world: World, settings: Settings, receiver: Receiver) -> None:
    world.write(
        """INSERT INTO phantoms.accounts (platform, name, state, reason, state_since)
        VALUES ('youtube', 'ocean', 'disconnected', 'reconnect it', clock_timestamp())"""
    )
    said, cursor = await ticked(settings)
    assert said == "sent 1: Phantoms: 1 account stopped working"
    [message] = receiver.got
    assert message["message"].count("ocean") == 1
    assert "phantoms accounts" in message["message"].splitlines()
    world.write("UPDATE phantoms.accounts SET reason = 'reconnect it now'")  # it was asked again
    assert (await ticked(settings, cursor))[0] == "nothing new"


async def test_a_delivery_that_fails_is_a_failed_tick_and_repeated_until_it_is_taken(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    dead(world, 1)
    receiver.status = 500
    with pytest.raises(PhantomsError, match=r"1 of 1 destinations did not accept the alert \(it answered 500\)") as caught:
        await ticked(settings)
    assert PASSWORD not in str(caught.value)
    receiver.status = 200
    said, cursor = await ticked(settings)
    assert (said, len(receiver.got)) == ("sent 1: Phantoms: 1 new dead letter", 1)
    assert PASSWORD not in str(cursor)


async def test_one_dead_destination_neither_silences_nor_repeats_the_other(
    world: World, settings: Settings, receiver: Receiver, heard: list[logging.LogRecord]
) -> None:
    wrong = [receiver.hook, f"json://ann:{PASSWORD}@127.0.0.1:1/x", f"nonsense://{PASSWORD}@x"]
    several = settings.changed({"alerts": {"urls": wrong}})
    dead(world, 1)
    said, cursor = await ticked(several)
    assert said.startswith(
        "sent 1: Phantoms: 1 new dead letter; 2 of 3 destinations did not accept the alert (it could not be reached; "
    )
    assert "this is not a URL that Apprise knows: see PHANTOMS_ALERT_URLS" in said
    again, _ = await ticked(several, cursor)
    assert again.startswith("2 of 3 destinations")
    assert len(receiver.got) == 1
    assert PASSWORD not in said + again + str(cursor)
    # Apprise names URLs in its own lines, cut short: none of them gets to the handlers of a process.
    assert [record for record in heard if record.name.startswith("apprise")] == []


async def test_dead_letters_make_alerts_even_without_redis(world: World, settings: Settings, receiver: Receiver) -> None:
    dead(world, 1)
    for url in ("redis://127.0.0.1:1/0", None):
        away = settings.changed({"redis": {"url": url}})
        assert (await ticked(away))[0] == "sent 1: Phantoms: 1 new dead letter, 1 thing waiting for a person"
    assert len(receiver.got) == 2


async def test_a_redis_that_cannot_be_used_makes_one_alert_and_another_only_after_it_was_back(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    away = settings.changed({"redis": {"url": "redis://127.0.0.1:1/0"}})
    said, cursor = await ticked(away)
    assert said == "sent 1: Phantoms: 1 thing waiting for a person"
    assert "Redis cannot be used, so all videos wait: Redis does not answer (" in receiver.got[0]["message"]
    assert (await ticked(away, cursor))[0] == "nothing new"
    _, cursor = await ticked(settings, cursor)
    assert (await ticked(away, cursor))[0] == said
    assert len(receiver.got) == 2


async def test_a_breaker_that_opens_makes_one_alert_however_often_its_probes_fail(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    quick = settings.changed({"breakers": {"reset_seconds": 0.05}})
    assert (await ticked(quick))[0] == "nothing new"
    _, cursor = await ticked(quick)
    await failing(quick)
    said, cursor = await ticked(quick, cursor)
    assert said == "sent 1: Phantoms: 1 breaker opened"
    async with watching(quick) as watcher:
        for _ in range(200):
            await asyncio.sleep(0.05)
            try:
                leave = await watcher.breakers.admit("shotstack")
            except PhantomsError:
                continue
            await watcher.breakers.settle(leave, CallOutcome.FAILED)
            break
        assert [c.new for c in await watcher.breakers.history("shotstack")][:2] == ["open", "half-open"]
    assert (await ticked(quick, cursor))[0] == "nothing new"


async def test_an_account_that_cannot_post_makes_one_alert_with_the_reason_and_without_its_token(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    world.write(
        "INSERT INTO phantoms.accounts (platform, name, state, reason, state_since)"
        " VALUES ('youtube', 'main', 'disconnected', :why, clock_timestamp())",
        why=f"refused https://x.example/?access_token={TOKEN}",
    )
    _, cursor = await ticked(settings)
    await ticked(settings, cursor)
    [message] = receiver.got
    assert message["title"] == "Phantoms: 1 account stopped working"
    assert "account youtube:main waits since" in message["message"]
    assert "access_token=***" in message["message"]
    assert TOKEN not in json.dumps(message)


async def test_without_a_destination_the_alert_says_so_and_is_kept(world: World, settings: Settings, receiver: Receiver) -> None:
    dead(world, 1)
    nowhere = settings.changed({"alerts": {"urls": []}})
    said, cursor = await ticked(nowhere)
    assert said.startswith("no alert destinations: set PHANTOMS_ALERT_URLS")
    assert (await ticked(settings, cursor))[0] == "sent 1: Phantoms: 1 new dead letter"


async def test_alerts_keep_their_distance(world: World, settings: Settings, receiver: Receiver) -> None:
    slow = settings.changed({"alerts": {"minutes": 5}})
    dead(world, 1)
    _, cursor = await ticked(slow)
    dead(world, 1)
    said, _ = await ticked(slow, cursor)
    assert said.startswith("the next alert goes out after ")
    assert len(receiver.got) == 1


# --- secrets


class _Token:
    async def token(self, platform: Platform, account: str) -> str:
        return TOKEN

    async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
        return None


async def _call(provider: str, client: httpx.AsyncClient, url: str) -> None:
    if provider == "youtube":
        await YouTubeCalls(client, url, _Token(), SystemClock()).get("main", "videos", access_token=TOKEN)
    elif provider == "tiktok":
        await TikTokCalls(client, url, _Token()).post("main", "/v2/x", params={"upload_token": TOKEN})
    elif provider == "shotstack":
        renderer = ShotstackRenderer(
            client=client, base_url=url, api_key=lambda: TOKEN, stage="v1", clock=SystemClock(), sandbox=True, usd_per_minute=0
        )
        await renderer.status("r1")
    else:
        raise judge(await client.get(url, params={"access_token": TOKEN}, headers={"Authorization": f"OAuth {TOKEN}"}), "main")


@pytest.mark.parametrize("provider", ["youtube", "tiktok", "shotstack", "instagram"])
async def test_a_token_that_a_provider_repeats_reaches_neither_letters_nor_events_nor_alerts(
    world: World, settings: Settings, receiver: Receiver, provider: str
) -> None:
    key = world.add()[0]
    async with httpx.AsyncClient() as client:

        async def use_case(task: StageTask) -> StageResult:
            await _call(provider, client, receiver.url)
            raise AssertionError("it was not refused")

        runner = StageRunner(
            store=world.store(),
            use_cases={"script": use_case},
            clock=SystemClock(),
            policy=RetryPolicy(),
            random=lambda: 1.0,
            new_owner=lambda: "runner",
            in_flight=1,
            heartbeat_seconds=20,
        )
        [result] = await runner.run(stage("script"), [key], PERSON)
    assert result.outcome == "failed"
    assert "refused" in result.message
    await ticked(settings)
    with world.engine.connect() as connection:
        tables = [
            connection.execute(text(f"SELECT to_jsonb(t)::text FROM phantoms.{table} t")).scalars().all()
            for table in ("dead_letters", "attempts", "stages")
        ]
    kept = json.dumps([tables, result.message, receiver.got])
    assert "refused" in kept
    assert "***" in kept
    assert TOKEN not in kept


async def test_no_secret_of_the_settings_leaves_in_an_alert_whatever_a_letter_says(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    given = settings.changed({"platforms": {"youtube": {"token": TOKEN}}})
    dead(world, 1, message=f"it said: {TOKEN} and {PASSWORD}")
    await ticked(given)
    assert "it said: *** and ***" in receiver.got[0]["message"]


# --- checks


def _by_stage(events: Sequence[dg.AssetCheckEvaluation]) -> dict[str, bool]:
    return {event.asset_key.to_user_string(): event.passed for event in events if event.check_name == "no_dead_letters"}


async def test_the_checks_follow_the_open_letters_without_a_run(world: World, settings: Settings) -> None:
    def look(cursor: str | None) -> tuple[list[dg.AssetCheckEvaluation], str | None]:
        services = Services(settings)
        try:
            with dg.build_sensor_context(cursor=cursor, resources={"services": services}) as context:
                answer = dead_letters_sensor(context)
        finally:
            services.close()
        if isinstance(answer, dg.SkipReason):
            return [], cursor
        assert isinstance(answer, dg.SensorResult)
        return list(answer.asset_events), answer.cursor  # type: ignore[arg-type]

    events, cursor = look(None)
    assert _by_stage(events) == dict.fromkeys((stage.slug for stage in STAGES.values()), True)
    keys = dead(world, 60)
    events, cursor = look(cursor)
    assert _by_stage(events) == {"script": False}
    assert events[0].metadata["open"].value == 60
    letters = events[0].metadata["letters"]
    assert isinstance(letters, dg.TableMetadataValue)
    records = letters.records
    assert (len(records), records[0].data["video"]) == (50, keys[-1])
    assert look(cursor)[0] == []
    DeadLetters(world.engine).replay(LetterFilter(), by="ann")
    events, cursor = look(cursor)
    assert _by_stage(events) == {"script": True}


async def test_a_check_can_be_run_by_hand_and_fails_without_failing_its_run(world: World, services: Services) -> None:
    dead(world, 2, name="voiceover")
    definitions = build_definitions(resource_overrides={"services": dg.ResourceDefinition.hardcoded_resource(services)})
    wanted = [dg.AssetCheckKey(dg.AssetKey(name), "no_dead_letters") for name in ("script", "voiceover")]
    stages = [a for a in definitions.assets or [] if isinstance(a, dg.AssetsDefinition) and a.check_keys & set(wanted)]
    with dg.DagsterInstance.ephemeral() as instance:
        done = await asyncio.to_thread(
            dg.materialize,
            stages,
            instance=instance,
            resources={"services": services, "checks_left": ChecksLeftResource(services=services)},
            selection=dg.AssetSelection.checks(*wanted),
        )
    assert done.success
    assert _by_stage(done.get_asset_check_evaluations()) == {"script": True, "voiceover": False}


def test_a_stages_own_runs_do_not_carry_the_checks() -> None:
    definitions = build_definitions()
    for name, one in STAGES.items():
        assert [node.name for node in definitions.resolve_job_def(f"{one.slug}_job").nodes] == [one.slug], name


# --- the summary


async def test_the_summary_of_a_day_is_sent_and_counts_that_day_alone(world: World, services: Services, receiver: Receiver) -> None:
    dead(world, 3)
    world.write(
        """UPDATE phantoms.dead_letters SET created_at = now() - interval '40 hours'
            WHERE id = (SELECT min(id) FROM phantoms.dead_letters)"""
    )
    today = datetime.now(UTC).astimezone().date()

    def run(day: str) -> bool:
        with dg.DagsterInstance.ephemeral() as instance:
            return daily_summary_job.execute_in_process(
                instance=instance,
                run_config=dg.RunConfig(ops={"daily_summary": SummaryConfig(day=day)}),
                resources={"services": services},
                raise_on_error=False,
            ).success

    assert await asyncio.to_thread(run, today.isoformat())
    assert not await asyncio.to_thread(run, "yesterday")
    receiver.status = 503
    assert not await asyncio.to_thread(run, today.isoformat())
    [message] = receiver.got
    assert message["title"] == f"Phantoms {today}: 0 posts, 2 failures, 0.00 USD"
    assert "Review: http://127.0.0.1:4000/review" in message["message"]
    assert "Videos added: 3" in message["message"]
    assert "Dead letters open now: 3" in message["message"]


def test_the_schedule_asks_for_one_run_a_day_at_eight_local_time(settings: Settings) -> None:
    schedule = make_daily_summary_schedule("America/New_York")
    assert (schedule.name, schedule.cron_schedule, schedule.execution_timezone) == (
        "daily_summary_schedule",
        "0 8 * * *",
        "America/New_York",
    )

    def asked(services: Services) -> object:
        at = datetime(2026, 11, 23, 13, tzinfo=UTC)
        with dg.build_schedule_context(scheduled_execution_time=at, resources={"services": services}) as context:
            return schedule(context)

    request = asked(Services(settings))
    assert isinstance(request, dg.RunRequest)
    assert (request.run_key, request.run_config["ops"]["daily_summary"]["config"]) == ("2026-11-22", {"day": "2026-11-22"})
    assert isinstance(asked(Services(settings.changed({"alerts": {"urls": []}}))), dg.SkipReason)


def test_a_day_is_a_local_one_from_midnight_to_midnight(world: World, services: Services) -> None:
    from phantoms_dagster.wiring.alerts import facts_of  # noqa: PLC0415

    dead(world, 1)
    world.write("UPDATE phantoms.dead_letters SET created_at = '2026-03-29 21:59:59+00'")  # a day of 23 hours in Berlin
    day = datetime(2026, 3, 29).date()  # noqa: DTZ001
    assert facts_of(services, day, "Europe/Berlin").failures == {"script": 1}
    assert facts_of(services, day + timedelta(days=1), "Europe/Berlin").failures == {}
    assert facts_of(services, day + timedelta(days=1), "Asia/Tokyo").failures == {"script": 1}
