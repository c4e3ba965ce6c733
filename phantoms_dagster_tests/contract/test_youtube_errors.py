"""YouTube's error table row by row, and the metrics that are read back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from phantoms_dagster.domain.errors import Barred, Disconnected, Permanent, ProviderError, Throttled, Transient, Unknown
from phantoms_dagster.domain.ports import Metrics
from phantoms_dagster.domain.values import JsonValue
from phantoms_dagster.platforms.youtube.api import Gone, accepted, refusal, seconds_to_quota, session_answer
from phantoms_dagster.platforms.youtube.metrics import YouTubeMetricsReader, metrics_in
from phantoms_dagster.platforms.youtube.search import is_ours
from phantoms_dagster.platforms.youtube.words import fit_description, fit_title
from phantoms_dagster.production.publication import publish
from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal, SandboxTokens
from phantoms_dagster_tests.contract.test_youtube import World, make_job, world
from phantoms_dagster_tests.reading import metrics, whole

NOW = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)  # noon in California
MIDNIGHT = 12 * 3_600.0
DAY = 86_400.0


def answer(status: int, reason: str | None, **headers: str) -> httpx.Response:
    error = {"code": status, "message": "said", "errors": [{"domain": "youtube", "reason": reason}] if reason else []}
    request = httpx.Request("PUT", "https://www.googleapis.com/upload/youtube/v3/videos?upload_id=secret")
    return httpx.Response(status, json={"error": error}, headers=headers, request=request)


@pytest.mark.parametrize(
    ("status", "reason", "error", "wait"),
    [
        *[
            (400, reason, Permanent, None)
            for reason in (
                "invalidTitle",
                "invalidDescription",
                "invalidTags",
                "invalidCategoryId",
                "invalidPublishAt",
                "invalidVideoMetadata",
                "invalidFilename",
                "invalidRecordingDetails",
                "defaultLanguageNotSet",
                "mediaBodyRequired",
            )
        ],
        (400, "uploadLimitExceeded", Throttled, DAY),
        (401, "authError", Disconnected, None),
        (401, "expired", Disconnected, None),
        (401, "youtubeSignupRequired", Disconnected, None),
        (401, "authorizationRequired", Disconnected, None),
        (403, "quotaExceeded", Throttled, MIDNIGHT),
        (403, "dailyLimitExceeded", Throttled, MIDNIGHT),
        (403, "rateLimitExceeded", Throttled, 9.0),
        (403, "userRateLimitExceeded", Throttled, 9.0),
        (429, "rateLimitExceeded", Throttled, 9.0),
        (429, "userRateLimitExceeded", Throttled, 9.0),
        (429, "uploadRateLimitExceeded", Throttled, 9.0),
        (403, "forbidden", Permanent, None),
        (403, "insufficientPermissions", Barred, None),
        (403, "forbiddenPrivacySetting", Permanent, None),
        (403, "forbiddenLicenseSetting", Permanent, None),
        (403, "authenticatedUserAccountSuspended", Barred, None),
        (403, "accessNotConfigured", Barred, None),
        (404, "videoNotFound", Permanent, None),
        (418, "somethingNew", Permanent, None),
        (400, None, Permanent, None),
    ],
)
def test_each_refusal_is_the_error_that_says_what_to_do(
    status: int, reason: str | None, error: type[ProviderError], wait: float | None
) -> None:
    made = refusal(answer(status, reason, **{"retry-after": "9"}), NOW)
    assert type(made) is error
    assert getattr(made, "retry_after", None) == wait
    assert made.evidence.status == status
    assert "secret" not in made.evidence.model_dump_json()
    if reason and status != 418:
        assert made.code == reason


def test_only_rejected_tokens_ask_for_the_account_to_be_reconnected() -> None:
    assert "reconnect the account" in str(refusal(answer(401, "authError"), NOW))
    assert "reconnect the account" in str(refusal(answer(401, None), NOW))
    assert "reconnect" not in str(refusal(answer(403, "quotaExceeded"), NOW))


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_is_unknown_at_a_commit_point_and_transient_elsewhere(status: int) -> None:
    with pytest.raises(Unknown):
        accepted(answer(status, "backendError"), NOW, commits=True)
    with pytest.raises(Transient):
        accepted(answer(status, "backendError"), NOW)


def test_googles_words_and_ours_are_one_sentence() -> None:
    error = {"message": "Invalid credentials.", "errors": [{"reason": "authError"}]}
    response = httpx.Response(401, json={"error": error}, request=httpx.Request("GET", "https://www.googleapis.com/"))
    assert "Invalid credentials; reconnect the account" in str(refusal(response, NOW))


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"error": "text"}', '{"error": {"errors": [1]}}', '{"error": null}'])
def test_a_refusal_that_is_not_in_googles_shape_is_judged_by_its_status(body: str) -> None:
    request = httpx.Request("GET", "https://www.googleapis.com/")
    assert type(refusal(httpx.Response(429, text=body, request=request), NOW)) is Throttled
    assert type(refusal(httpx.Response(403, text=body, request=request), NOW)) is Permanent


@pytest.mark.parametrize(
    ("now", "hours"),
    [
        (datetime(2026, 11, 22, 20, 0, tzinfo=UTC), 12),
        (datetime(2026, 11, 1, 8, 0, tzinfo=UTC), 24),  # the night in which the clocks go back
        (datetime(2026, 3, 8, 9, 0, tzinfo=UTC), 22),
        (datetime(2026, 11, 22, 8, 20, tzinfo=UTC), 1 / 12),  # twenty past midnight: the reset may be late
    ],
)
def test_the_quota_is_fresh_at_midnight_in_california(now: datetime, hours: float) -> None:
    assert timedelta(seconds=seconds_to_quota(now)) == timedelta(hours=hours)


def test_the_wait_for_midnight_goes_by_youtubes_clock() -> None:
    """Our clock is an hour ahead and says ten past midnight. The post would wait for a whole day."""
    refused = answer(403, "quotaExceeded", Date="Sun, 22 Nov 2026 07:10:00 GMT")
    found = refusal(refused, datetime(2026, 11, 22, 8, 40, tzinfo=UTC))
    assert isinstance(found, Throttled)
    assert found.retry_after == 50 * 60


def test_titles_and_descriptions_keep_to_youtubes_limits() -> None:
    assert fit_title("  one\n two  ") == "one two"
    assert len(fit_title("x" * 101)) == 100
    assert fit_title("x" * 100) == "x" * 100
    assert "<" not in fit_title("a<b>c")
    assert fit_description("short #tag") == "short #tag"
    cut = fit_description("wörter " * 1_000)
    assert len(cut.encode()) <= 5_000
    assert cut.endswith("wörter\u2026")
    assert 4_990 < len(fit_description("é" * 4_000).encode()) <= 5_000
    assert ">" not in fit_description("a -> b")


@pytest.mark.parametrize("status", [404, 410])
def test_a_session_that_youtube_does_not_know_is_gone_in_both_spellings(status: int) -> None:
    answer = session_answer(httpx.Response(status), datetime(2026, 11, 22, tzinfo=UTC), commits=False)
    assert answer == Gone()


@pytest.mark.parametrize(
    ("name", "size", "title", "ours"),
    [
        ("attempt-1.mp4", None, "another", True),
        ("attempt-2.mp4", "same", "same", False),
        ("unknown", "same", "same", True),
        ("A video of 2026.mp4", "same", "same", True),  # where the name comes from is not documented
        ("video.mp4", "1", "same", False),
        ("upload", None, "same", None),
        (None, "same", "same", True),
        (None, "1", "same", False),
        (None, "same", "another", False),
        (None, None, "same", None),
        (None, None, "another", False),
    ],
)
def test_a_video_is_ours_by_its_file_name_or_else_by_title_and_size(
    tmp_path: Path, name: str | None, size: str | None, title: str, ours: bool | None
) -> None:
    job = make_job(tmp_path)
    details = {"fileName": name, "fileSize": str(job.size) if size == "same" else size}
    video = {"snippet": {"title": job.title if title == "same" else title}, "fileDetails": details}
    assert is_ours(video, job) is ours  # type: ignore[arg-type]


# --- metrics --------------------------------------------------------------------------------------------------------


def reader(w: World) -> YouTubeMetricsReader:
    return YouTubeMetricsReader(client=w.client, base_url=w.base_url, tokens=SandboxTokens(), clock=w.clock)


async def test_counters_grow_and_never_fall_and_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    runs = []
    for _ in range(2):
        async with world(seed=7) as w:
            post = await publish(w.publisher, make_job(tmp_path), FakeJournal())
            views = []
            for _ in range(20):
                w.sandbox.advance(6 * 3_600)
                [m] = await metrics(reader(w), "main", [post.remote_id])
                assert m.views is not None
                assert m.likes is not None
                views.append(m.views)
            assert views == sorted(views)
            assert views[-1] > 100
            assert views[-1] > views[0]
            runs.append(views[-1])
    assert runs[0] == pytest.approx(runs[1], rel=0.01)


async def test_counters_that_are_hidden_or_not_told_are_none_not_zero(tmp_path: Path) -> None:
    async with world() as w:
        w.sandbox.config["youtube.hidden_counters"] = ["likeCount"]
        post = await publish(w.publisher, make_job(tmp_path), FakeJournal())
        [m] = await metrics(reader(w), "main", [post.remote_id])
        assert m == Metrics(remote_id=post.remote_id, views=0, likes=None, comments=0, shares=None, watch_seconds=None)


async def test_posts_that_youtube_no_longer_knows_are_absent_and_ids_go_in_groups_of_50(tmp_path: Path) -> None:
    async with world() as w:
        ids = [
            (await publish(w.publisher, make_job(tmp_path, marker=f"m-{n}", size=500), FakeJournal())).remote_id for n in range(3)
        ]
        asked = [ids[2], *(f"unknown{n}" for n in range(60)), ids[0], ids[1], ids[0]]
        read = await whole(reader(w).pages("main", asked))
        assert [m.remote_id for m in read.metrics] == [ids[2], ids[0], ids[1]]
        assert read.gone == tuple(f"unknown{n}" for n in range(60))
        assert w.sandbox.calls["youtube.stats"] == 2


async def test_numbers_are_read_without_a_unit_of_what_publishing_needs(tmp_path: Path) -> None:
    async with world() as w:
        post = await publish(w.publisher, make_job(tmp_path), FakeJournal())
        youtube = w.sandbox.state["youtube"]
        before = dict(youtube.quota.used)
        await metrics(reader(w), "main", [post.remote_id])
        assert youtube.quota.used["units"] == before["units"]
        assert youtube.quota.used["stats"] == 1


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_a_project_that_may_not_call_batch_get_stats_reads_by_list_and_asks_only_once(tmp_path: Path, status: int) -> None:
    async with world() as w:
        post = await publish(w.publisher, make_job(tmp_path), FakeJournal())
        w.sandbox.faults.append(Fault(route="youtube.stats", status=status, body='{"error": {"message": "no"}}'))
        reading = reader(w)
        for _ in range(2):
            assert [m.remote_id for m in await metrics(reading, "main", [post.remote_id])] == [post.remote_id]
        assert w.sandbox.calls["youtube.stats"] == 1


async def test_nothing_to_read_asks_nothing() -> None:
    async with world() as w:
        assert await metrics(reader(w), "main", []) == []
        assert w.sandbox.calls == {}


def test_counters_are_numbers_made_of_strings() -> None:
    items: list[JsonValue] = [{"id": "a", "statistics": {"viewCount": "18446744073709551615", "likeCount": "3"}}, {"id": "b"}]
    assert metrics_in({"items": items}) == [
        Metrics(remote_id="a", views=18_446_744_073_709_551_615, likes=3),
        Metrics(remote_id="b"),
    ]
