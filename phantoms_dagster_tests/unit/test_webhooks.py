"""Where webhooks may go, when they are tried again, and what is shown of an address."""

from __future__ import annotations

import asyncio
import ipaddress
import threading

import pytest

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.webhooks import RetrySchedule, Targets, address_of, check_url, origin, refused
from phantoms_dagster.wiring.threads import in_thread

PUBLIC = "https://hooks.example.org/T0/s3cret?token=abc"


@pytest.mark.parametrize("url", [PUBLIC, "https://93.184.216.34/x", "https://[2606:2800:220:1::1]:8443/"])
@pytest.mark.parametrize("targets", ["public", "loopback", "private"])
def test_public_addresses_by_https_are_always_taken(url: str, targets: Targets) -> None:
    assert check_url(f" {url} ", targets) == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://hooks.example.org/", "use https"),
        ("ftp://hooks.example.org/", "should look like https"),
        ("hooks.example.org", "should look like https"),
        ("https://", "should look like https"),
        ("https://ann:s3cret@example.org/", "leave name and password out"),
        ("https://example.org/#part", "never sent"),
        ("https://example.org:99999/", "not a URL"),
        ("https://example.org/a b", "without spaces"),
        ("https://169.254.169.254/latest", "link-local"),
        ("https://[::ffff:169.254.169.254]/", "link-local"),
        ("https://[fd00:ec2::254]/", "link-local"),
        ("https://0.0.0.0/", "reserved"),
        ("https://224.0.0.1/", "multicast"),
        ("https://240.0.0.1/", "reserved"),
        ("https://" + "a" * 2000, "at most"),
    ],
)
@pytest.mark.parametrize("targets", ["public", "loopback", "private"])
def test_what_is_never_taken_says_why_and_repeats_no_secret(url: str, said: str, targets: Targets) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        check_url(url, targets)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/x", "http://localhost/x", "http://[::1]:1/x", "https://127.9.9.9/"])
def test_this_machine_is_taken_unless_the_setting_says_public(url: str) -> None:
    assert check_url(url, "loopback") == url
    assert check_url(url, "private") == url
    with pytest.raises(InvalidInput, match="PHANTOMS_WEBHOOK_TARGETS=public"):
        check_url(url, "public")


@pytest.mark.parametrize("host", ["10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "[fc00::1]", "[64:ff9b::10.0.0.1]"])
def test_private_networks_are_taken_only_when_the_setting_says_so(host: str) -> None:
    url = f"https://{host}/x"
    assert check_url(url, "private") == url
    for targets in ("public", "loopback"):
        with pytest.raises(InvalidInput, match="PHANTOMS_WEBHOOK_TARGETS=private allows that"):
            check_url(url, targets)


def test_an_ipv4_address_inside_an_ipv6_one_is_judged_as_itself() -> None:
    for text in ("::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::"):
        assert address_of(text) == ipaddress.ip_address("127.0.0.1")
    assert refused(ipaddress.ip_address("127.0.0.1"), "public") is not None


def test_an_address_is_shown_without_what_may_be_a_secret() -> None:
    assert origin(PUBLIC) == "https://hooks.example.org/..."
    assert origin("http://127.0.0.1:8080") == "http://127.0.0.1:8080"


def test_tries_are_spread_over_days_with_growing_waits() -> None:
    schedule = RetrySchedule()
    waits = [schedule.wait(n) for n in range(1, len(schedule.waits) + 1)]
    assert waits == sorted(schedule.waits)
    assert 2 * 86_400 < sum(schedule.waits) < 4 * 86_400
    assert schedule.wait(len(schedule.waits) + 1) is None
    assert schedule.wait(1, asked=120) == 120
    assert schedule.wait(1, asked=1e9) == 86_400
    assert (schedule.wait(1, spread=1), schedule.wait(1, spread=-1)) == (6, 4)
    assert [schedule.pause(n) for n in (1, 2, 3, 40)] == [1, 2, 4, 300]
    assert schedule.lease > 2 * schedule.timeout


async def test_a_loop_that_is_stopped_waits_for_the_transaction_that_is_under_way() -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(30)
        ended.set()

    loop = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait, 30)
    loop.cancel()
    await asyncio.sleep(0.05)
    assert not loop.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await loop
    assert ended.is_set()
