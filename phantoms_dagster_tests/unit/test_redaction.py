"""Tokens and codes are removed from texts by their names and by their forms. Words that only resemble them stay."""

from __future__ import annotations

import httpx
import pytest

from phantoms_dagster.providers.http import unexpected
from phantoms_dagster.providers.redaction import redact

INSTAGRAM = "IGAA" + "a1B2" * 12


@pytest.mark.parametrize("secret", ["ya29.a0Ab-c_d", "1//0gAbc-d", "act.xyz!4567.va", "rft.a*b~c", INSTAGRAM, "EAA" + "x9" * 20])
def test_a_token_is_removed_wherever_it_is_in_a_text(secret: str) -> None:
    for text in (f"it said {secret} again", f'{{"x":"{secret}"}}', f"{secret}", f"x={secret}&y=1"):
        assert secret not in redact(text)


def test_codes_and_secrets_are_removed_by_their_names() -> None:
    url = "GET http://127.0.0.1:8400/callback?state=s1&code=4%2F0Abc&x=1"
    assert redact(url) == "GET http://127.0.0.1:8400/callback?state=s1&code=***&x=1"
    assert redact("code_verifier=abc&client_secret=def&grant_type=x") == "code_verifier=***&client_secret=***&grant_type=x"


@pytest.mark.parametrize(
    "text", ['{"code": "scope_not_authorized"}', "a fact.of life", "act. It", "IG Reels", "http://h/1/2", "EAAT"]
)
def test_words_that_only_resemble_a_token_stay(text: str) -> None:
    assert redact(text) == text


def test_a_key_that_a_provider_quotes_is_left_out_of_the_evidence_and_of_the_message() -> None:
    """A key of Shotstack looks like any word, so only the request tells that it is one."""
    request = httpx.Request("POST", "https://api.shotstack.io/v1", headers={"x-api-key": "kR5zzQ17pla"})
    response = httpx.Response(418, text="the key kR5zzQ17pla is a teapot", request=request)
    error = unexpected(response, provider="shotstack", message=response.text)
    assert str(error) == "shotstack answered 418: the key *** is a teapot"
    assert error.evidence.body == "the key *** is a teapot"
