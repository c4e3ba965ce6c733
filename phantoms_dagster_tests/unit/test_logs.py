"""Log lines: their subject follows the task in both formats, and no secret leaks, however it came in."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from phantoms_dagster.domain import logs as about
from phantoms_dagster.resilience.limits import CallScope
from phantoms_dagster.resilience.transport import CallRecord
from phantoms_dagster.settings import Settings, grouped
from phantoms_dagster.wiring import logs

SECRET = "sk-5ecr3t-5ecr3t"
LOGGER = logging.getLogger("phantoms_dagster.production.test")
# Parameters and fields of the providers' requests and answers that are as good as a password.
SECRET_NAMES = (
    "access_token",
    "refresh_token",
    "upload_token",
    "upload_id",
    "appsecret_proof",
    "client_secret",
    "X-Amz-Signature",
    "signature",
    "token",
    "api_key",
    "x-api-key",
)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger(logs.OURS)
    handlers, level = list(root.handlers), ours.level
    yield
    root.handlers[:] = handlers
    ours.setLevel(level)


class Written:
    """What was written to standard error so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Written:
    return Written(capsys)


def configured(**given: object) -> None:
    logs.configure(Settings(**grouped({"log_format": "json", **given})))


def lines(stderr: Written) -> list[dict[str, object]]:
    return [json.loads(line) for line in stderr.getvalue().splitlines()]


def test_a_line_says_which_video_stage_attempt_and_run_it_is_about(stderr: Written) -> None:
    configured()
    with about.about(run_id="r1", stage="script", video="v1"):
        with about.about(attempt="a1"):
            LOGGER.info("made %s", "it")
        LOGGER.warning("after")
    LOGGER.info("outside")
    first, second, third = lines(stderr)
    assert {name: first[name] for name in about.FIELDS} == {"run_id": "r1", "stage": "script", "video": "v1", "attempt": "a1"}
    assert (first["message"], first["level"], first["logger"]) == ("made it", "INFO", LOGGER.name)
    assert str(first["time"]).endswith("Z")
    assert "attempt" not in second
    assert second["video"] == "v1"
    assert not set(third) & set(about.FIELDS)


async def test_videos_that_are_worked_on_at_once_do_not_mix_their_lines(stderr: Written) -> None:
    configured()
    together = asyncio.Barrier(20)

    async def work(video: str) -> None:
        with about.about(video=video):
            await together.wait()
            await asyncio.create_task(helper(video))
            LOGGER.info(video)

    async def helper(video: str) -> None:
        LOGGER.info(video)

    await asyncio.gather(*(work(f"v{n}") for n in range(20)))
    found = lines(stderr)
    assert len(found) == 40
    assert all(line["video"] == line["message"] for line in found)
    assert about.current() == {}


def test_fields_are_given_back_when_the_work_fails() -> None:
    def work() -> None:
        with about.about(video="v1"):
            assert about.current() == {"video": "v1"}
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert about.current() == {}


def test_text_is_one_line_for_people_with_the_same_fields(stderr: Written) -> None:
    configured(log_format="text")
    with about.about(video="v1", stage="script"):
        LOGGER.info("made it", extra={"seconds": 1.5})
    assert stderr.getvalue().endswith(f" INFO {LOGGER.name}: made it stage=script video=v1 seconds=1.5\n")


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_secret_gets_out_by_message_argument_field_or_traceback(stderr: Written, form: str) -> None:
    configured(log_format=form, openai_api_key=SECRET)
    shapes = [
        f"key {SECRET} is bad",
        "GET https://x/?access_token=HIDDEN&a=1",
        "Authorization: Bearer HIDDEN",
        "Authorization: OAuth HIDDEN",  # Instagram's upload host
        *(f"PUT https://x/?{name}=HIDDEN&a=1" for name in SECRET_NAMES),
        *(f'{{"{name}": "HIDDEN"}}' for name in SECRET_NAMES),
        "postgresql://u:HIDDEN@127.0.0.1/db",
        "redis://:HIDDEN@127.0.0.1/0",
    ]
    for shape in shapes:
        LOGGER.info("%s", shape, extra={"field": shape, "many": [shape]})
        try:
            raise ValueError(shape)
        except ValueError:
            LOGGER.exception("broke")
    written = stderr.getvalue()
    assert written.count("ValueError: ") == len(shapes)
    assert "***" in written
    assert "HIDDEN" not in written
    assert SECRET not in written


def test_other_libraries_are_heard_from_their_warnings_on_and_redacted_too(stderr: Written) -> None:
    configured()
    other = logging.getLogger("another_library")
    other.info("chatter")
    other.warning("https://x/?access_token=%s", "HIDDEN")
    assert [line["message"] for line in lines(stderr)] == ["https://x/?access_token=***"]


def test_configuring_again_replaces_and_does_not_repeat_lines(stderr: Written) -> None:
    configured(log_format="text")
    configured(log_level="WARNING")
    LOGGER.info("quiet")
    LOGGER.warning("loud")
    assert [line["message"] for line in lines(stderr)] == ["loud"]


def call(**changes: object) -> CallRecord:
    fields = {"scope": CallScope("youtube", account="main", pool="youtube_api"), "method": "POST", "host": "www.googleapis.com"}
    numbers = {"outcome": "answered", "status": 200, "why": "", "waited": 0.25, "seconds": 1.5}
    return CallRecord(**{**fields, **numbers, **changes})  # type: ignore[arg-type]


def test_each_call_is_a_line_at_debug_with_what_it_was_for(stderr: Written) -> None:
    configured(log_level="DEBUG")
    with about.about(video="v1", attempt="a1"):
        logs.log_call(call())
        logs.log_call(call(outcome="deferred", status=None, why="breaker"))
    answered, deferred = lines(stderr)
    wanted = {"integration": "youtube", "host": "www.googleapis.com", "status": 200, "outcome": "answered"}
    wanted |= {"seconds": 1.5, "waited": 0.25, "video": "v1", "attempt": "a1", "level": "DEBUG", "account": "main"}
    assert {name: answered[name] for name in wanted} == wanted
    assert (deferred["why"], deferred["outcome"]) == ("breaker", "deferred")
    assert "status" not in deferred


def test_calls_are_not_logged_unless_asked_for(stderr: Written) -> None:
    configured()
    logs.log_call(call())
    assert stderr.getvalue() == ""


def test_a_field_that_json_cannot_hold_is_written_anyway(stderr: Written) -> None:
    configured()
    LOGGER.info("odd", extra={"thing": {1, 2}, "words": "z\u00fcrich\nline"})
    (line,) = lines(stderr)
    assert line["thing"] == "{1, 2}"
    assert line["words"] == "z\u00fcrich\nline"
