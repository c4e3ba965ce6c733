"""Tokens of accounts in channels.yaml: the file names the place of a secret, never the secret, and no two accounts share one."""

from __future__ import annotations

import pytest

from phantoms_dagster.domain.accounts import check_tokens, token_sources
from phantoms_dagster.domain.channels import parse
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import WRITTEN_CHANNEL, Channel, Platform

TEXT = """
channels:
  facts:
    title: Facts
    brand_voice: calm
    accounts:
      youtube: {account: main, token: "%s"}
"""


def channel(name: str, account: str, token: str | None = None) -> Channel:
    given: object = {"account": account, "token": token} if token else account
    return WRITTEN_CHANNEL.validate_python({"name": name, "title": name, "brand_voice": "calm", "accounts": {"youtube": given}})


@pytest.mark.parametrize("place", ["env:CURIOUS_TOKEN", "file:/run/secrets/curious"])
def test_an_account_may_name_where_its_token_is(place: str) -> None:
    found = parse(TEXT % place)["facts"]
    assert (found.accounts, found.tokens) == ({Platform("youtube"): "main"}, {Platform("youtube"): place})
    assert Channel.model_validate_json(found.model_dump_json()) == found


def test_a_token_in_the_file_itself_is_refused_and_never_repeated() -> None:
    with pytest.raises(InvalidInput, match="write env:VARIABLE or file:/path") as refused:
        parse(TEXT % "ya29.secret-token")
    assert "ya29" not in str(refused.value)


def test_the_one_variable_is_the_token_of_one_account_only() -> None:
    two = token_sources([channel("a", "first"), channel("b", "second")])
    with pytest.raises(InvalidInput, match="PHANTOMS_YOUTUBE_TOKEN is the token of one account, and there are 2"):
        check_tokens(two, [Platform("youtube")])
    check_tokens(two, [])  # the sandbox answers for both
    check_tokens(token_sources([channel("a", "first"), channel("b", "first")]), [Platform("youtube")])
    check_tokens(token_sources([channel("a", "first"), channel("b", "second", "env:SECOND")]), [Platform("youtube")])


def test_an_account_is_not_left_without_a_token_while_others_have_one() -> None:
    with pytest.raises(InvalidInput, match="account first has no token while another one has"):
        check_tokens(token_sources([channel("a", "first"), channel("b", "second", "env:SECOND")]), [])


def test_two_accounts_never_name_the_same_token_nor_one_account_two() -> None:
    with pytest.raises(InvalidInput, match="first and second name the same token"):
        token_sources([channel("a", "first", "env:ONE"), channel("b", "second", "env:ONE")])
    with pytest.raises(InvalidInput, match="account first has two tokens"):
        token_sources([channel("a", "first", "env:ONE"), channel("b", "first", "env:TWO")])
