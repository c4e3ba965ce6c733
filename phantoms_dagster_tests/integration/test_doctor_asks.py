"""What `phantoms doctor` learns from the services it asks: the sandbox plays the real ones, over HTTP."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from phantoms_dagster.cli.doctor import examine
from phantoms_dagster.cli.looks import ParallelChecks
from phantoms_dagster.cli.main import app
from phantoms_dagster.providers.http import unreachable
from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster.settings import Settings, grouped
from phantoms_dagster.wiring import key_checks
from phantoms_dagster.wiring.key_checks import Finding
from phantoms_dagster_tests.sandbox_thread import Running, sandbox_thread

CHANNELS = """
channels:
  curious:
    title: Curious
    brand_voice: Calm.
    tiktok: {privacy: SELF_ONLY}
    accounts: {youtube: ocean, tiktok: reef, instagram: shore}
"""
TOKENS = {"youtube": "sandbox-ocean", "tiktok": "sandbox-reef", "instagram": "sandbox-shore"}
ACCOUNTS = ("youtube:ocean", "tiktok:reef", "instagram:shore")
ASKED = ("openai", "model", "shotstack", *ACCOUNTS)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Running]:
    with sandbox_thread(tmp_path / "sandbox") as running:
        yield running


def settings(tmp_path: Path, url: str, **changed: str) -> Settings:
    """Settings with every key."""
    (tmp_path / "channels.yaml").write_text(CHANNELS)
    values = {
        "home": str(tmp_path),
        "openai_api_key": "sandbox-key",
        "openai_base_url": f"{url}/openai/v1",
        "shotstack_api_key": "sandbox-key",
        "shotstack_base_url": f"{url}/shotstack",
        "youtube_base_url": url,
        "tiktok_base_url": f"{url}/tiktok",
        "instagram_base_url": f"{url}/instagram",
        **{f"{name}_token": token for name, token in TOKENS.items()},
    }
    return Settings(**grouped({**values, **changed}))


def doctor(chosen: Settings) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(chosen)}


def test_every_service_with_a_key_is_asked_and_nothing_is_made_or_billed(sandbox: Running, tmp_path: Path) -> None:
    found = doctor(settings(tmp_path, sandbox.url))
    assert {name: found[name].verdict for name in ASKED} == dict.fromkeys(ASKED, "ok"), found
    assert "all scopes granted" in found["youtube:ocean"].found
    calls = ("openai.models", "shotstack.status", "google.tokeninfo", "tiktok.list", "instagram.permissions")
    assert {name: sandbox.sandbox.calls.get(name) for name in calls} == dict.fromkeys(calls, 1)
    assert sandbox.sandbox.ledger == []


def test_a_sandbox_that_does_not_run_is_not_said_to_answer(sandbox: Running, tmp_path: Path) -> None:
    (tmp_path / "channels.yaml").write_text(CHANNELS)
    nowhere = "http://127.0.0.1:9"  # discard: nothing of ours listens there
    services = ("openai", "shotstack", "youtube", "tiktok", "instagram")
    for url, said in ((sandbox.url, "the sandbox replaces it"), (None, "the sandbox is not running"), (nowhere, "not running")):
        found = doctor(Settings(paths={"home": tmp_path}, sandbox={"url": url}))
        for service in services:
            assert said in found[service].found, (url, found[service])
            assert found[service].verdict == "note"
            assert ("phantoms up" in found[service].fix) == (url != sandbox.url)
            connects = service in ("youtube", "tiktok", "instagram")
            assert (f"`phantoms accounts connect {service}` or set PHANTOMS_" in found[service].fix) == connects


@pytest.mark.parametrize(
    ("check", "withheld", "purpose"),
    [
        ("youtube:ocean", "youtube.upload", "uploads videos"),
        ("youtube:ocean", "youtube.force-ssl", "makes an uploaded video public and adds captions"),
        ("youtube:ocean", "yt-analytics.readonly", "reads watch time"),
        ("tiktok:reef", "user.info.basic", "tells whose the token is"),
        ("tiktok:reef", "video.publish", "posts videos"),
        ("tiktok:reef", "video.list", "reads the numbers of posts"),
        ("instagram:shore", "instagram_content_publish", "posts reels"),
        ("instagram:shore", "instagram_manage_insights", "reads the numbers of posts"),
        ("instagram:shore", "pages_show_list", "finds the Page that the Instagram account is linked to"),
    ],
)
def test_a_scope_that_was_not_granted_is_named_with_what_it_is_for(
    sandbox: Running, tmp_path: Path, check: str, withheld: str, purpose: str
) -> None:
    minimal = {
        "youtube": ["youtube.upload", "youtube.readonly", "youtube.force-ssl", "yt-analytics.readonly"],
        "tiktok": ["user.info.basic", "video.publish", "video.list"],
        "instagram": [
            "instagram_basic",
            "instagram_content_publish",
            "instagram_manage_insights",
            "pages_show_list",
            "pages_read_engagement",
        ],
    }
    platform, account = check.split(":")
    granted = [name for name in minimal[platform] if name != withheld]
    if withheld == "youtube.upload":
        granted.remove("youtube.force-ssl")  # it includes uploading
    if withheld == "yt-analytics.readonly":
        granted.remove("youtube.readonly")  # it includes reading watch time
    httpx.post(f"{sandbox.url}/_sandbox/config", json={f"{platform}.scopes": {account: granted}}, trust_env=False)
    found = doctor(settings(tmp_path, sandbox.url))
    assert found[check].verdict == "wrong"
    assert f"{withheld} ({purpose})" in found[check].found
    assert not any(f"{name} (" in found[check].found for name in granted)
    assert found[check].fix == "connect the account again and grant these scopes"
    assert {found[other].verdict for other in ASKED if other != check} == {"ok"}


def test_a_wider_scope_includes_the_narrow_ones(sandbox: Running, tmp_path: Path) -> None:
    httpx.post(f"{sandbox.url}/_sandbox/config", json={"youtube.scopes": {"ocean": ["youtube"]}}, trust_env=False)
    assert doctor(settings(tmp_path, sandbox.url))["youtube:ocean"].verdict == "ok"


def test_instagram_login_is_asked_about_its_own_scopes(sandbox: Running, tmp_path: Path) -> None:
    granted = ["instagram_business_basic", "instagram_business_manage_insights"]
    changed = {"instagram.login": "instagram", "instagram.scopes": {"shore": granted}}
    httpx.post(f"{sandbox.url}/_sandbox/config", json=changed, trust_env=False)
    found = doctor(settings(tmp_path, sandbox.url))["instagram:shore"]
    assert found.verdict == "wrong"
    assert re.findall(r"instagram_\w+", found.found) == ["instagram_business_content_publish"]


def test_a_host_that_does_not_tell_the_scopes_is_a_note_and_never_ok(sandbox: Running, tmp_path: Path) -> None:
    refused = json.dumps({"error": {"code": 100, "message": "(#100) You must provide an app access token"}})
    for route in ("instagram.permissions", "instagram.debug_token"):
        sandbox.sandbox.faults.append(Fault(route, status=400, body=refused))
    sandbox.sandbox.faults.append(Fault("google.tokeninfo", status=404))
    found = doctor(settings(tmp_path, sandbox.url))
    for check in ("instagram:shore", "youtube:ocean"):
        assert found[check].verdict == "note"
        assert "could not be checked" in found[check].found


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_dead_token_says_renew_it_and_a_dead_key_too(sandbox: Running, tmp_path: Path, how: str) -> None:
    for platform, token in TOKENS.items():
        dead = {f"{platform}.revoked": [token]} if how == "revoked" else {f"{platform}.token_seconds": 0}
        httpx.post(f"{sandbox.url}/_sandbox/config", json=dead, trust_env=False)
    found = doctor(settings(tmp_path, sandbox.url, openai_api_key="sk-of-nobody-01234567", shotstack_api_key="dead"))
    for check in (*ACCOUNTS, "openai", "shotstack"):
        assert found[check].verdict == "wrong"
        assert found[check].fix.startswith(("renew the token in PHANTOMS_", "renew the key in PHANTOMS_")), found[check]
    assert "model" not in found


def closed_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def silent() -> Iterator[str]:
    """A host that takes connections and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def plain_text() -> Iterator[str]:
    """A host that speaks no TLS."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4_096)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def elsewhere(tmp_path: Path, url: str) -> Settings:
    names = ("openai", "shotstack", "youtube", "tiktok", "instagram")
    return settings(tmp_path, "http://unused", **{f"{name}_base_url": url for name in names})


def each_cannot_be_reached(found: dict[str, Finding], why: str) -> None:
    for check in ("openai", "shotstack", *ACCOUNTS):
        assert (found[check].verdict, why in found[check].found) == ("wrong", True), found[check]
        assert found[check].found.startswith("cannot be reached: ")
        name = check.partition(":")[0].upper()
        assert found[check].fix.startswith(f"check the network and PHANTOMS_{name}_BASE_URL")
        assert "renew" not in found[check].fix


def test_a_refused_connection_is_the_networks_trouble(tmp_path: Path) -> None:
    each_cannot_be_reached(doctor(elsewhere(tmp_path, f"http://127.0.0.1:{closed_port()}")), "the connection was refused")


def test_a_host_name_that_does_not_resolve_is_a_fault_of_the_network(tmp_path: Path) -> None:
    each_cannot_be_reached(doctor(elsewhere(tmp_path, "https://nobody.invalid")), "cannot be resolved (DNS)")


def test_a_host_without_tls_is_the_networks_trouble(tmp_path: Path, plain_text: str) -> None:
    each_cannot_be_reached(doctor(elsewhere(tmp_path, f"https://{plain_text}")), "TLS failed")


def test_a_silent_host_is_the_networks_trouble(tmp_path: Path, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_checks, "SECONDS", 0.5)
    each_cannot_be_reached(doctor(elsewhere(tmp_path, f"http://{silent}")), "no answer within 0.5 s")


def test_a_login_page_on_the_way_is_the_networks_trouble(sandbox: Running, tmp_path: Path) -> None:
    sandbox.sandbox.faults.append(Fault("*", status=200, body="<html>Welcome to the hotel</html>"))
    each_cannot_be_reached(doctor(settings(tmp_path, sandbox.url)), "a proxy or a login page")


def test_a_proxy_of_the_environment_is_said_not_to_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    found = doctor(elsewhere(tmp_path, f"http://127.0.0.1:{closed_port()}"))
    assert found["openai"].fix.endswith("the proxy set in the environment is not used")


def test_a_service_with_trouble_of_its_own_is_a_note(sandbox: Running, tmp_path: Path) -> None:
    sandbox.sandbox.faults.append(Fault("*", status=503))
    found = doctor(settings(tmp_path, sandbox.url))
    for check in ("openai", "shotstack", *ACCOUNTS):
        assert (found[check].verdict, "the check was not possible" in found[check].found) == ("note", True), found[check]


def test_services_are_asked_at_the_same_time_and_each_answer_is_printed_when_it_comes(sandbox: Running, tmp_path: Path) -> None:
    """The slowest answer waits until the others are printed. If they were asked one after another, this would never end."""
    sandbox.sandbox.faults.append(Fault("openai.models", kind="latency", seconds=3))
    told = [finding.check for finding in examine(settings(tmp_path, sandbox.url))]
    assert set(told[-2:]) == {"openai", "model"}
    assert set(ACCOUNTS) <= set(told[:-2])


def test_a_question_that_is_never_answered_is_reported_and_delays_no_other() -> None:
    ended, names = threading.Event(), []
    looks = ParallelChecks(lambda running: names.append(tuple(running)))
    looks.start("stuck", lambda: [Finding("stuck", "ok", str(ended.wait(60)))], 0.2)
    looks.start("quick", lambda: [Finding("quick", "ok", "done")])
    assert [(f.check, f.verdict) for f in looks.findings()] == [("quick", "ok"), ("stuck", "wrong")]
    ended.set()
    assert names[-1] == ()


def test_the_json_is_one_object_in_one_order(sandbox: Running, tmp_path: Path) -> None:
    chosen = settings(tmp_path, sandbox.url)
    services = ("openai", "shotstack", *TOKENS)
    named = {f"PHANTOMS_{name.upper()}_BASE_URL": str(chosen.integration(name).base_url) for name in services}
    named |= {f"PHANTOMS_{name.upper()}_TOKEN": token for name, token in TOKENS.items()}
    keys = {"PHANTOMS_OPENAI_API_KEY": "sandbox-key", "PHANTOMS_SHOTSTACK_API_KEY": "sandbox-key", "PHANTOMS_HOME": str(tmp_path)}
    result = CliRunner().invoke(app, ["doctor", "--json"], env={**named, **keys})
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"]) == (0, True), report
    ends = ["openai", "model", "shotstack", *sorted([*ACCOUNTS, "tiktok:reef route"])]
    assert [f["check"] for f in report["findings"]][-7:] == ends
    shown = CliRunner().invoke(app, ["doctor"], env={**named, **keys})
    assert shown.exit_code == 0
    assert not any(token in shown.stdout for token in ("sandbox-ocean", "sandbox-reef", "sandbox-key"))


def test_no_answer_repeats_a_token(sandbox: Running, tmp_path: Path) -> None:
    for route in ("google.*", "tiktok.*", "instagram.*"):
        echo = json.dumps({"error": "invalid_token", "error_description": f"bad access_token={TOKENS['youtube']}"})
        sandbox.sandbox.faults.append(Fault(route, status=400, body=echo))
    found = doctor(settings(tmp_path, sandbox.url))
    assert not any(token in f.found + f.fix for f in found.values() for token in TOKENS.values())


def test_the_ssl_module_is_the_one_the_words_are_made_from() -> None:
    error = OSError("wire")
    error.__cause__ = ssl.SSLCertVerificationError("certificate verify failed: self-signed certificate")
    assert unreachable(error).startswith("TLS failed: SSLCertVerificationError")
