"""channels.yaml: what it may say, and that every mistake is named with file, channel and key."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phantoms_dagster.domain.channels import default_text, parse
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform

ONE = "channels:\n  sea:\n    title: The Sea\n    brand_voice: Calm.\n    accounts: {youtube: sea}\n"


def test_the_default_file_is_valid_and_posts_everywhere() -> None:
    [channel] = parse(default_text()).values()
    assert set(channel.accounts) == set(Platform)


def test_the_first_channel_of_the_file_is_the_first_of_the_mapping() -> None:
    second = ONE.removeprefix("channels:\n").replace("sea:", "air:")
    assert list(parse(ONE + second)) == ["sea", "air"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "needs a mapping `channels:`"),
        ("channels: {}", "needs a mapping `channels:`"),
        ("- a", "needs a mapping `channels:`"),
        ("channels: [", "line 1"),
        (ONE + "  sea:\n    title: Again\n", "line 6: key 'sea' stands twice"),
        (ONE + "    title: Again\n", "key 'title' stands twice"),
        (ONE + "    name: other\n", "channel 'sea': name:"),
        (ONE + "    colour: red\n", "channel 'sea': colour:"),
        (ONE + "    target_seconds: 5\n", "channel 'sea': target_seconds:"),
        (ONE + "    timezone: Mars/Olympus\n", "channel 'sea': timezone: unknown time zone"),
        (ONE + "    timezone: Europe\n", "channel 'sea': timezone: unknown time zone"),
        (ONE + "    posting_hours: {start: 9, end: 9}\n", "posting_hours.start must be before"),
        (ONE + "    language: 2026-13-45\n", "not valid YAML"),
        (ONE.replace("{youtube: sea}", "{}"), "at least one account"),
        (ONE.replace("youtube", "vimeo"), "accounts.vimeo"),
        (ONE.replace("  sea:", "  Sea Side:"), "channel 'Sea Side': name:"),
        (ONE + "defaults: {}\n", "unknown key 'defaults'"),
        ("channels: {sea: 5}", "channel 'sea' must be a mapping"),
        ("[" * 3_000, "not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_its_place(content: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(content, name="my.yaml")
    assert str(caught.value).startswith("my.yaml")
    assert reason in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.sampled_from(["title", "timezone", "accounts", "budget_usd", "palette", "voice"]))
def test_no_value_makes_it_raise_anything_else(value: str, key: str) -> None:
    with contextlib.suppress(InvalidInput):
        parse(f"{ONE}    {key}: {value}\n")
