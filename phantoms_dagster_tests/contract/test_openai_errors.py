"""The error table of the chat completions API, row by row, and the waits that its headers ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import httpx_aiohttp
import pytest
from aiohttp.test_utils import TestServer, unused_port

from phantoms_dagster.domain.errors import Permanent, ProviderError, Rejected, Throttled, Transient
from phantoms_dagster.providers.http import never_sent
from phantoms_dagster.providers.openai import errors as openai_errors
from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster.sandbox.openai import routes as stand_in

REQUEST = httpx.Request("POST", "https://api.example/v1/chat/completions")


def answered(status: int, code: str | None = None, kind: str | None = None, **headers: str) -> httpx.Response:
    body = {"error": {"message": "the reason", "type": kind, "param": None, "code": code}}
    return httpx.Response(status, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}, request=REQUEST)


@pytest.mark.parametrize(
    ("status", "code", "kind", "error"),
    [
        (400, None, "invalid_request_error", Permanent),
        (400, "context_length_exceeded", "invalid_request_error", Permanent),
        (400, "content_filter", None, Rejected),
        (400, "content_policy_violation", "invalid_request_error", Rejected),
        (400, "invalid_prompt", "invalid_request_error", Rejected),
        (401, "invalid_api_key", "invalid_request_error", Permanent),
        (402, None, None, Permanent),
        (403, "unsupported_country_region_territory", "request_forbidden", Permanent),
        (404, "model_not_found", "invalid_request_error", Permanent),
        (408, None, None, Transient),
        (409, None, None, Transient),
        (422, None, None, Permanent),
        (429, "rate_limit_exceeded", "requests", Throttled),
        (429, "rate_limit_exceeded", "tokens", Throttled),
        (429, None, None, Throttled),
        (429, "slow_down", "rate_limit_error", Throttled),
        (429, "insufficient_quota", "insufficient_quota", Permanent),
        (429, "credit_balance_exhausted", "insufficient_quota", Permanent),
        (429, "some_new_spend_limit", "insufficient_quota", Permanent),
        (429, "billing_hard_limit_reached", None, Permanent),
        (429, "billing_not_active", "billing_not_active", Permanent),
        (500, None, "server_error", Transient),
        (502, None, None, Transient),
        (503, "server_is_overloaded", "service_unavailable_error", Transient),
        (503, "slow_down", "service_unavailable_error", Transient),
        (529, None, None, Transient),
    ],
)
def test_each_refusal_is_the_error_of_its_row(status: int, code: str | None, kind: str | None, error: type[ProviderError]) -> None:
    refused = openai_errors.refusal(answered(status, code, kind), secret=None)
    assert type(refused) is error
    assert refused.code == (code or kind or str(status))
    assert refused.provider == "openai"
    assert refused.evidence.status == status
    assert str(status) in str(refused)
    # The text of a 401 quotes the key.
    assert ("the reason" in str(refused)) is (status != 401)
    assert ("may have been billed" in str(refused)) is (status >= 500)


def test_every_row_of_the_table_can_be_reached() -> None:
    for (status, code), error in openai_errors.ERRORS.items():
        assert type(openai_errors.refusal(answered(status, code), secret=None)) is error


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        (429, {"retry_after": "9", "x_ratelimit_reset_requests": "1s"}, 9.0),
        (429, {"x_ratelimit_reset_requests": "6m0s", "x_ratelimit_reset_tokens": "30ms"}, 360.0),
        (
            429,
            {
                "x_ratelimit_reset_requests": "1h2m3.5s",
                "x_ratelimit_remaining_requests": "12",
                "x_ratelimit_reset_tokens": "20s",
                "x_ratelimit_remaining_tokens": "0",
            },
            20.0,
        ),
        (429, {"x_ratelimit_reset_requests": "soon"}, None),
        (429, {}, None),
        (500, {"x_ratelimit_reset_requests": "6m0s"}, None),
        (500, {"retry_after": "3"}, 3.0),
        (503, {}, openai_errors.OVERLOADED_SECONDS),
        (503, {"retry_after": "2"}, 2.0),
    ],
)
def test_the_wait_is_the_providers_own(status: int, headers: dict[str, str], seconds: float | None) -> None:
    refused = openai_errors.refusal(answered(status, **headers), secret=None)
    assert isinstance(refused, Transient)
    assert refused.retry_after == seconds


@pytest.mark.parametrize("text", ["<html>Bad gateway</html>", '"just text"', "[]", '{"error": "plain"}', '{"detail": "x"}', ""])
def test_a_refusal_without_the_usual_body_is_still_classified(text: str) -> None:
    refused = openai_errors.refusal(httpx.Response(502, text=text, request=REQUEST), secret=None)
    assert type(refused) is Transient
    assert refused.code == "502"


# --- with the transport that is used in production ----------------------------------------------------------------------


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx_aiohttp.AiohttpTransport(), timeout=5) as client:
        yield client


async def test_a_server_that_hangs_up_in_the_middle_is_not_taken_for_one_that_was_never_reached(client: httpx.AsyncClient) -> None:
    sandbox = Sandbox()
    sandbox.faults.append(Fault("openai.models", kind="drop_after"))
    async with TestServer(application(sandbox, [stand_in.routes(sandbox)])) as server:
        with pytest.raises(httpx.HTTPError) as caught:
            await client.get(str(server.make_url("/openai/v1/models")))
    assert not never_sent(caught.value)


async def test_a_request_to_a_closed_port_was_never_sent(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.HTTPError) as caught:
        await client.get(f"http://127.0.0.1:{unused_port()}/")
    assert never_sent(caught.value)
