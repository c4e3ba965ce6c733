"""`phantoms accounts connect` and its relatives, as processes, against a small platform over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
import psycopg
import pytest

SECRETS = ("ya29.access", "1//refresh", "act.access", "rft.refresh", "IGshort", "IGlong", "top-secret", "the-code")
GOOGLE = "https://www.googleapis.com/auth/"
SCOPES = ("youtube.upload", "youtube.readonly", "youtube.force-ssl", "yt-analytics.readonly")
YOUTUBE_SCOPES = " ".join(GOOGLE + name for name in SCOPES)


@dataclass
class FakePlatform:
    """What the three platforms answer. `asked`: every request, as (path, parameters)."""

    scope: str = YOUTUBE_SCOPES
    channel: str = "UC-ocean"
    used_codes: tuple[str, ...] = ()
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, given: dict[str, str]) -> Any:
        self.asked.append((path, given))
        match path:
            case "/token" if given.get("code") in self.used_codes:
                return {"error": "invalid_grant", "error_description": "Bad Request"}
            case "/token":
                if given["grant_type"] == "refresh_token":
                    return {"access_token": "ya29.access-2", "expires_in": 3599, "scope": self.scope}
                token = {"access_token": "ya29.access-1", "refresh_token": "1//refresh", "expires_in": 3599, "scope": self.scope}
                return {**token, "refresh_token_expires_in": 604_799}
            case "/revoke" | "/v2/oauth/revoke/":
                return {}
            case "/youtube/v3/channels":
                return {"items": [{"id": self.channel, "snippet": {"title": "Ocean"}}]}
            case "/oauth2/v2/tokeninfo":
                return {"scope": self.scope}
            case "/v2/oauth/token/":
                token = {"access_token": "act.access", "refresh_token": "rft.refresh", "expires_in": 86_400, "open_id": "open-1"}
                if given["grant_type"] == "refresh_token":
                    token |= {"access_token": "act.access-2", "refresh_token": "rft.refresh-2"}
                return {**token, "refresh_expires_in": 31_536_000, "scope": "user.info.basic,video.publish,video.list"}
            case "/v2/user/info/":
                return {"data": {"user": {"open_id": "open-1", "display_name": "Reef"}}, "error": {"code": "ok"}}
            case "/oauth/access_token":
                names = "instagram_business_basic,instagram_business_content_publish,instagram_business_manage_insights"
                return {"data": [{"access_token": "IGshort", "user_id": "17", "permissions": names}]}
            case "/access_token":
                return {"access_token": "IGlong", "token_type": "bearer", "expires_in": 5_184_000}
            case "/v26.0/me":
                return {"user_id": "17", "username": "shore"}
        return None


@pytest.fixture
def platform() -> Iterator[FakePlatform]:
    fake = FakePlatform()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            found = fake.answer(place.path, dict(parse_qsl(place.query)) | dict(parse_qsl(body)))
            sent = json.dumps(found if found is not None else {"error": {"code": 100, "message": "unknown path"}}).encode()
            self.send_response(200 if found is not None else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_POST = do_GET  # noqa: N815 - the base class names it so

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield fake
    server.shutdown()
    server.server_close()


CHANNELS = """
channels:
  facts:
    title: Facts
    brand_voice: calm
    accounts: {youtube: ocean, tiktok: reef, instagram: shore}
    tiktok: {privacy: SELF_ONLY}
"""


@dataclass
class Commands:
    """The program in a data directory, with an app registered at each platform."""

    home: Path
    database_url: str
    platform: FakePlatform
    printed: list[str] = field(default_factory=list)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        url = self.platform.url
        given = {
            "PHANTOMS_HOME": str(self.home),
            "PHANTOMS_DATABASE_URL": self.database_url,
            "PHANTOMS_YOUTUBE_AUTHORIZE_URL": f"{url}/authorize",
            "PHANTOMS_YOUTUBE_TOKEN_URL": url,
            "PHANTOMS_TIKTOK_AUTHORIZE_URL": f"{url}/authorize",
            "PHANTOMS_INSTAGRAM_AUTHORIZE_URL": f"{url}/authorize",
            "PHANTOMS_INSTAGRAM_TOKEN_URL": url,
            "PHANTOMS_INSTAGRAM_REDIRECT_URI": "https://phantoms.example.org/connected/",
        }
        for name in ("YOUTUBE", "TIKTOK", "INSTAGRAM"):
            given |= {
                f"PHANTOMS_{name}_CLIENT_ID": "app",
                f"PHANTOMS_{name}_CLIENT_SECRET": "top-secret",
                f"PHANTOMS_{name}_BASE_URL": url,
            }
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PHANTOMS_")}
        return {**kept, "BROWSER": "true", **given}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-m", "phantoms_dagster.cli.main", *arguments]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.started.append(subprocess.Popen(command, env={**self.environment, **environment}, text=True, **pipes))
        return self.started[-1]

    def end(self, process: subprocess.Popen[str], said: str = "", *, code: int = 0) -> str:
        out, err = process.communicate(said, timeout=60)
        self.printed += [out, err]
        assert process.returncode == code, err + out
        return out + err

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        return self.end(self.start(*arguments, **environment), code=code)

    def paste(self, *arguments: str, answer: dict[str, str], code: int = 0) -> str:
        """Connect with --paste: read the URL that is printed, and paste the address that the browser ends at."""
        process = self.start("accounts", "connect", *arguments, "--paste")
        url = self.page(process)
        asked = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
        ended = f"{asked['redirect_uri']}?{urlencode({'state': asked['state'], **answer})}"
        return self.end(process, ended + "\n", code=code)

    def page(self, process: subprocess.Popen[str]) -> str:
        assert process.stderr is not None
        for line in process.stderr:
            self.printed.append(line)
            if "/authorize?" in line:
                return line.strip()
        raise AssertionError(f"no URL: {self.printed}")

    def accounts(self) -> dict[str, Any]:
        found = json.loads(self.run("accounts", "--json"))["accounts"]
        return {f"{row['platform']}:{row['name']}": row for row in found}


@pytest.fixture
def commands(tmp_path: Path, database_url: str, platform: FakePlatform) -> Iterator[Commands]:
    (tmp_path / "channels.yaml").write_text(CHANNELS)
    commands = Commands(tmp_path, database_url, platform)
    yield commands
    for process in commands.started:
        process.kill()
        process.communicate()


CODE = {"code": "the-code"}


def test_an_account_is_connected_in_the_browser_and_used_by_name(commands: Commands) -> None:
    process = commands.start("accounts", "connect", "youtube")
    url = commands.page(process)
    asked = dict(parse_qsl(urlsplit(url).query))
    assert (asked["access_type"], asked["prompt"], asked["code_challenge_method"]) == ("offline", "select_account consent", "S256")
    assert set(asked["scope"].split()) == set(YOUTUBE_SCOPES.split())
    page = httpx.get(asked["redirect_uri"], params={"state": asked["state"], "code": "the-code"}, timeout=30, trust_env=False)
    assert page.status_code == 200
    assert "YouTube account ocean is Ocean" in page.text
    said = commands.end(process)
    assert "connected youtube:ocean: Ocean (UC-ocean)" in said
    assert "Google ends the connection of an app in testing after 7 days" in said
    [form] = [given for path, given in commands.platform.asked if path == "/token"]
    challenge = urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
    assert challenge == asked["code_challenge"]
    assert form["redirect_uri"] == asked["redirect_uri"]
    account = commands.accounts()["youtube:ocean"]
    assert (account["place"], account["label"], account["standing"]) == ("stored", "Ocean", "expiring")  # an app in testing
    assert (commands.home / "token.keys").stat().st_mode & 0o777 == 0o600


def test_an_answer_with_another_state_is_refused_and_the_right_one_still_counts(commands: Commands) -> None:
    process = commands.start("accounts", "connect", "youtube")
    asked = dict(parse_qsl(urlsplit(commands.page(process)).query))
    for state in ("wrong", ""):
        page = httpx.get(asked["redirect_uri"], params={"state": state, "code": "stolen"}, timeout=30, trust_env=False)
        assert page.status_code == 400
        assert "belongs to another attempt" in page.text
    assert commands.platform.asked == []
    httpx.get(asked["redirect_uri"], params={"state": asked["state"], **CODE}, timeout=30, trust_env=False)
    commands.end(process)
    assert "belongs to another attempt" in commands.paste("youtube", answer={"state": "wrong", **CODE}, code=2)


def test_a_denied_consent_stores_nothing_and_says_so_in_the_browser_too(commands: Commands) -> None:
    process = commands.start("accounts", "connect", "youtube")
    asked = dict(parse_qsl(urlsplit(commands.page(process)).query))
    denied = {"state": asked["state"], "error": "access_denied"}
    page = httpx.get(asked["redirect_uri"], params=denied, timeout=30, trust_env=False)
    assert "YouTube gave no access (access_denied); nothing was stored" in page.text
    assert "access_denied" in commands.end(process, code=2)
    assert commands.accounts() == {}


def test_unticked_permissions_are_named_with_their_purpose_and_nothing_is_stored(commands: Commands) -> None:
    commands.platform.scope = f"{GOOGLE}youtube.readonly {GOOGLE}yt-analytics.readonly"
    said = commands.paste("youtube", answer=CODE, code=2)
    assert "youtube.upload (uploads videos)" in said
    assert "youtube.readonly (" not in said
    assert commands.accounts() == {}


def test_a_code_that_was_used_before_is_explained(commands: Commands) -> None:
    commands.platform.used_codes = ("the-code",)
    said = commands.paste("youtube", answer=CODE, code=2)
    assert "YouTube did not accept the code (invalid_grant: Bad Request). A code works once and for a short time" in said
    assert commands.accounts() == {}


def test_a_reconnect_by_another_owner_is_refused(commands: Commands) -> None:
    commands.paste("youtube", answer=CODE)
    commands.platform.channel = "UC-desert"
    assert "has another owner than" in commands.paste("youtube", answer=CODE, code=2)
    assert commands.accounts()["youtube:ocean"]["subject"] == "UC-ocean"


def test_an_account_that_no_channel_names_is_connected_and_that_is_said_first(commands: Commands) -> None:
    assert "connected youtube:nosuch" in commands.paste("youtube", "--name", "nosuch", answer=CODE)
    assert "no channel names the YouTube account nosuch yet" in "".join(commands.printed)


def test_tiktok_gets_the_challenge_in_hexadecimal_and_the_code_decoded(commands: Commands) -> None:
    process = commands.start("accounts", "connect", "tiktok", "--paste", "--name", "reef")
    asked = dict(parse_qsl(urlsplit(commands.page(process)).query))
    assert (asked["client_key"], asked["scope"]) == ("app", "user.info.basic,video.publish,video.list")
    commands.end(process, "the-code%2Awith%21signs\n")  # the code alone, as the address shows it
    [form] = [given for path, given in commands.platform.asked if path == "/v2/oauth/token/"]
    assert form["code"] == "the-code*with!signs"
    assert asked["code_challenge"] == hashlib.sha256(form["code_verifier"].encode()).hexdigest()
    account = commands.accounts()["tiktok:reef"]
    assert (account["subject"], account["standing"]) == ("open-1", "connected")


def test_instagram_exchanges_the_short_token_for_the_long_one(commands: Commands) -> None:
    said = commands.paste("instagram", answer={"code": "the-code#_"})
    assert "connected instagram:shore: shore (17)" in said
    [form] = [given for path, given in commands.platform.asked if path == "/oauth/access_token"]
    assert (form["code"], form["redirect_uri"]) == ("the-code", "https://phantoms.example.org/connected/")
    [exchange] = [given for path, given in commands.platform.asked if path == "/access_token"]
    assert (exchange["grant_type"], exchange["access_token"]) == ("ig_exchange_token", "IGshort")


def test_check_asks_the_platform_and_disconnect_revokes_and_forgets(commands: Commands) -> None:
    commands.paste("youtube", answer=CODE)
    said = commands.run("accounts", "check", "youtube:ocean")
    assert "ok  youtube:ocean: Ocean (UC-ocean), all scopes granted\n" in said
    assert len(re.findall(r"the connection ends on .* UTC unless it is renewed", said)) == 1
    assert "disconnected youtube:ocean; its tokens are deleted" in commands.run("accounts", "disconnect", "youtube:ocean")
    assert ("/revoke", {"token": "1//refresh"}) in commands.platform.asked
    account = commands.accounts()["youtube:ocean"]
    assert (account["place"], account["subject"], account["standing"]) == (None, "UC-ocean", "not connected")
    assert "run `phantoms accounts connect youtube --name ocean`" in " ".join(commands.run("accounts").split())


def test_an_account_whose_access_token_has_expired_is_revoked_by_a_new_one(commands: Commands) -> None:
    commands.paste("tiktok", answer=CODE)
    with psycopg.connect(commands.database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("UPDATE phantoms.accounts SET access_expires_at = clock_timestamp() - interval '1 hour'")
    assert "its tokens are deleted" in commands.run("accounts", "disconnect", "tiktok:reef")
    [form] = [given for path, given in commands.platform.asked if path == "/v2/oauth/revoke/"]
    assert form["token"] == "act.access-2"


def test_a_disconnection_tells_the_platform_also_about_tokens_that_a_refresh_stored_meanwhile(commands: Commands) -> None:
    commands.paste("youtube", answer=CODE)
    answer, revoked = commands.platform.answer, list[str]()

    def renewed_meanwhile(path: str, given: dict[str, str]) -> Any:
        if path == "/revoke" and not revoked:
            with psycopg.connect(commands.database_url.replace("+psycopg", ""), autocommit=True) as connection:
                connection.execute("UPDATE phantoms.accounts SET generation = generation + 1 WHERE name = 'ocean'")
        revoked.extend([path] if path == "/revoke" else [])
        return answer(path, given)

    commands.platform.answer = renewed_meanwhile  # type: ignore[method-assign]
    assert "its tokens are deleted" in commands.run("accounts", "disconnect", "youtube:ocean")
    assert len(revoked) == 2
    assert commands.accounts()["youtube:ocean"]["standing"] == "not connected"


def test_a_connected_account_stays_connected_when_the_channels_are_imported_again(commands: Commands) -> None:
    commands.paste("youtube", answer=CODE)
    commands.run("add", "Why octopuses have three hearts")
    assert commands.accounts()["youtube:ocean"]["place"] == "stored"


def test_a_key_that_is_replaced_or_lost_is_explained(commands: Commands) -> None:
    commands.paste("youtube", answer=CODE)
    old = (commands.home / "token.keys").read_text()
    assert "1 accounts are encrypted with a new key" in commands.run("accounts", "rotate-key")
    new = (commands.home / "token.keys").read_text()
    assert new.endswith(f",{old}")
    commands.run("accounts", "check", "youtube:ocean")
    (commands.home / "token.keys").unlink()
    said = commands.run("accounts", "check", "youtube:ocean", code=1)
    assert "token.keys is not on this machine" in said
    said = commands.run("accounts", "check", "youtube:ocean", code=1, PHANTOMS_TOKEN_KEYS="A" * 43 + "=")
    assert "no key in PHANTOMS_TOKEN_KEYS decrypts the stored tokens. They are not lost" in said
    commands.run("accounts", "check", "youtube:ocean", PHANTOMS_TOKEN_KEYS=new)


def test_another_machine_without_the_key_cannot_connect_an_account_that_the_first_could_not_read(commands: Commands) -> None:
    """It made a key of its own. The workers of the first machine could not decrypt what it stored."""
    commands.paste("youtube", answer=CODE)
    other = commands.home / "other"
    other.mkdir()
    (other / "channels.yaml").write_text(CHANNELS)
    said = commands.run("accounts", "connect", "tiktok", "--paste", code=2, PHANTOMS_HOME=str(other))
    assert "other/token.keys is not on this machine: copy it from the machine that connected the accounts" in said
    assert "/authorize?" not in said  # the owner was not asked for an access that could not be stored
    assert not (other / "token.keys").exists()


def test_what_cannot_be_connected_says_what_to_do_instead(commands: Commands) -> None:
    assert "it takes an app password" in commands.run("accounts", "connect", "bluesky", code=2)
    assert "PHANTOMS_SANDBOX is on" in commands.run("accounts", "connect", "youtube", code=2, PHANTOMS_SANDBOX="on")
    said = commands.run("accounts", "connect", "youtube", "--paste", code=2, PHANTOMS_YOUTUBE_CLIENT_ID="")
    assert "PHANTOMS_YOUTUBE_CLIENT_ID is not set" in said
    facebook = {"PHANTOMS_INSTAGRAM_BASE_URL": "https://graph.facebook.com"}
    assert "PHANTOMS_INSTAGRAM_BASE_URL=https://graph.instagram.com" in commands.run(
        "accounts", "connect", "instagram", "--paste", code=2, **facebook
    )


def test_a_redirect_uri_with_any_port_is_taken_as_tiktok_shows_it(commands: Commands) -> None:
    """The `*` of TikTok's own form ended the command with a traceback."""
    registered = {"PHANTOMS_TIKTOK_REDIRECT_URI": "http://127.0.0.1:*/from-tiktok"}
    process = commands.start("accounts", "connect", "tiktok", **registered)
    asked = {key: values[0] for key, values in parse_qs(urlsplit(commands.page(process)).query).items()}
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/from-tiktok", asked["redirect_uri"])
    page = httpx.get(asked["redirect_uri"], params={"state": asked["state"], **CODE})
    assert "Connected" in page.text
    assert "connected tiktok:reef" in commands.end(process)
    process = commands.start("accounts", "connect", "tiktok", "--paste", **registered)
    assert "redirect_uri=http%3A%2F%2F127.0.0.1%3A8400%2Ffrom-tiktok" in commands.page(process)


@pytest.mark.parametrize("uri", ["127.0.0.1:8400/callback", "http://127.0.0.1:99999/callback", "http://127.0.0.1:x/callback"])
def test_a_redirect_uri_that_is_no_address_is_refused_in_words(commands: Commands, uri: str) -> None:
    said = commands.run("accounts", "connect", "tiktok", code=2, PHANTOMS_TIKTOK_REDIRECT_URI=uri)
    assert f"PHANTOMS_TIKTOK_REDIRECT_URI is {uri}, which is not an address" in " ".join(said.split())


@pytest.mark.parametrize("name", ["youtube", "tiktok", "instagram"])
def test_the_owner_is_not_asked_while_the_secret_is_missing(commands: Commands, name: str) -> None:
    """The code of the page was wasted: the secret was missed only after the owner had granted access."""
    missing = f"PHANTOMS_{name.upper()}_CLIENT_SECRET"
    said = commands.run("accounts", "connect", name, "--paste", code=2, **{missing: ""})
    assert f"{missing} is not set" in said
    assert "/authorize?" not in said


def test_instagram_is_not_opened_with_an_address_that_meta_refuses(commands: Commands) -> None:
    given = {"PHANTOMS_INSTAGRAM_AUTHORIZE_URL": "https://www.instagram.com/oauth/authorize", "PHANTOMS_INSTAGRAM_REDIRECT_URI": ""}
    said = " ".join(commands.run("accounts", "connect", "instagram", "--paste", code=2, **given).split())
    assert "Instagram sends people back to https addresses only" in said
    assert "set PHANTOMS_INSTAGRAM_REDIRECT_URI to it" in said


def test_a_platform_that_does_not_answer_is_explained_and_so_is_what_to_do(commands: Commands) -> None:
    away = {"PHANTOMS_YOUTUBE_TOKEN_URL": "http://127.0.0.1:1"}
    process = commands.start("accounts", "connect", "youtube", "--paste", **away)
    commands.page(process)
    said = " ".join(commands.end(process, "the-code\n", code=1).split())
    assert "YouTube cannot be reached: the connection was refused; nothing was stored. Connect again once it answers" in said


def test_connect_says_that_the_running_phantoms_does_not_have_the_app(commands: Commands) -> None:
    """The account was connected from a second terminal, and an hour later nobody could renew its token."""
    running = commands.home / "running.env"
    running.write_text(f"PHANTOMS_DATABASE_URL='{commands.database_url}'\n")
    commands.paste("youtube", answer=CODE)
    said = " ".join("".join(commands.printed).split())
    assert "the running `phantoms up` has another PHANTOMS_YOUTUBE_CLIENT_ID, or none" in said
    commands.printed.clear()
    url = commands.platform.url
    known = {"CLIENT_ID": "app", "BASE_URL": url, "TOKEN_URL": url}
    running.write_text("".join(f"PHANTOMS_YOUTUBE_{name}='{value}'\n" for name, value in known.items()))
    commands.paste("youtube", answer=CODE)
    assert "the running `phantoms up`" not in " ".join("".join(commands.printed).split())


@pytest.mark.parametrize(
    ("name", "said"), [("x" * 101, "1 to 100 characters"), ("a\nb", "one line"), ("a\u202eb", "U+202E"), ("a\x1b[2Jb", "U+001B")]
)
def test_a_name_that_channels_yaml_could_not_have_is_refused(commands: Commands, name: str, said: str) -> None:
    """Names are shown in terminals, alerts and commands to copy."""
    assert said in commands.run("accounts", "connect", "youtube", "--paste", "--name", name, code=2)
    assert commands.platform.asked == []


def test_the_code_alone_is_enough_only_where_it_is_bound_to_the_attempt(commands: Commands) -> None:
    """Without PKCE a code of another person's log-in would connect that person's account."""
    process = commands.start("accounts", "connect", "instagram", "--paste")
    commands.page(process)
    assert "needs the whole address" in commands.end(process, "the-code\n", code=2)
    assert commands.platform.asked == []
    process = commands.start("accounts", "connect", "youtube", "--paste")
    commands.page(process)
    assert "connected youtube:ocean" in commands.end(process, "the-code\n")


def test_an_address_that_cannot_be_read_is_refused_in_words(commands: Commands) -> None:
    process = commands.start("accounts", "connect", "youtube", "--paste")
    commands.page(process)
    said = commands.end(process, "http://[127.0.0.1/callback?code=the-code\n", code=2)
    assert "neither the address of the page nor a code" in said
    assert "Traceback" not in said


def test_no_token_code_or_secret_is_printed_logged_or_stored_in_clear(commands: Commands) -> None:
    for name in ("youtube", "tiktok", "instagram"):
        commands.paste(name, answer=CODE)
    commands.run("accounts", "check", PHANTOMS_LOG_LEVEL="DEBUG", code=1)
    commands.run("accounts", "list")
    found = json.loads(commands.run("doctor", "--json", code=1).partition("}]}")[0] + "}]}")["findings"]
    states = [one["found"] for one in found if one["check"] == "youtube:ocean"]
    assert any(state.startswith("expiring: the connection ends on ") for state in states)
    assert any(state == "Ocean (UC-ocean), all scopes granted" for state in states)
    with psycopg.connect(commands.database_url.replace("+psycopg", "")) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'phantoms'").fetchall()
        dump = "\n".join(str(row) for (table,) in tables for row in connection.execute(f'SELECT t::text FROM phantoms."{table}" t'))
    files = [path.read_bytes().decode(errors="replace") for path in commands.home.rglob("*") if path.is_file()]
    everything = "\n".join([*commands.printed, dump, *files])
    assert [secret for secret in SECRETS if re.search(re.escape(secret), everything)] == []


def test_an_account_without_a_token_is_not_shown_as_if_it_had_one(commands: Commands) -> None:
    """The list said "env, ok" of an account whose variable was not set, while `phantoms doctor` said that it is not connected."""
    (commands.home / "channels.yaml").write_text(
        CHANNELS + "  night: {title: Night, brand_voice: calm, accounts: {youtube: night}}\n"
    )
    commands.paste("youtube", "--name", "ocean", answer=CODE)
    with psycopg.connect(commands.database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("INSERT INTO phantoms.accounts (platform, name) VALUES ('youtube', 'night')")
    listed = [line.split() for line in commands.run("accounts", "list", COLUMNS="200").splitlines()]
    [night] = [" ".join(line) for line in listed if line[0] == "youtube:night"]
    connect = "run `phantoms accounts connect youtube --name night`"
    assert night == f"youtube:night not asked yet none not connected: it has no token; {connect}"
    assert commands.accounts()["youtube:night"]["standing"] == "not connected"
    doctor = commands.run("doctor", code=1, COLUMNS="400")
    assert "YouTube account night is not connected" in doctor
    assert "put the token there" not in doctor


def test_an_account_that_no_channel_names_fails_no_check_and_can_be_removed(commands: Commands) -> None:
    """Accounts of an earlier channels.yaml stayed for ever, were called ok in the list, and failed each `accounts check`."""
    commands.paste("youtube", answer=CODE)
    with psycopg.connect(commands.database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("INSERT INTO phantoms.accounts (platform, name) VALUES ('youtube', 'curious-minute')")
    remove = "phantoms accounts --forget youtube:curious-minute"
    assert f"no channel names it; run `{remove}` to remove it" in commands.run("accounts", "list", COLUMNS="200")
    checked = commands.run("accounts", "check")
    assert f"note  youtube:curious-minute: not checked: no channel names it; run `{remove}` to remove it" in checked
    assert "removed youtube:curious-minute" in commands.run("accounts", "--forget", "youtube:curious-minute")
    assert "youtube:curious-minute" not in commands.run("accounts", "list", COLUMNS="200")
    assert "forgot the owner of youtube:ocean" in commands.run("accounts", "--forget", "youtube:ocean")
    assert commands.accounts()["youtube:ocean"]["place"] == "stored"


def test_a_check_says_the_command_that_helps_once(commands: Commands) -> None:
    commands.paste("youtube", answer=CODE)
    with psycopg.connect(commands.database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("UPDATE phantoms.accounts SET dead_generation = generation, state = 'disconnected' WHERE name = 'ocean'")
    said = commands.run("accounts", "check", "youtube:ocean", code=1)
    assert said.count("phantoms accounts connect youtube --name ocean") == 1
    assert "it ends on" not in said


@pytest.mark.parametrize("paste", [(), ("--paste",)])
def test_ctrl_c_while_the_owner_is_asked_says_that_nothing_was_stored(commands: Commands, paste: tuple[str, ...]) -> None:
    process = commands.start("accounts", "connect", "youtube", *paste)
    commands.page(process)
    process.send_signal(signal.SIGINT)
    assert "interrupted: nothing was stored" in commands.end(process, code=130)


def test_an_https_redirect_to_this_machine_is_pasted_because_nothing_answers_it_there(commands: Commands) -> None:
    """The command waited for ten minutes for an answer that a browser could not bring."""
    address = "https://localhost:8400/callback/"
    process = commands.start("accounts", "connect", "instagram", PHANTOMS_INSTAGRAM_REDIRECT_URI=address)
    asked = {key: values[0] for key, values in parse_qs(urlsplit(commands.page(process)).query).items()}
    said = commands.end(process, f"{address}?{urlencode({'state': asked['state'], **CODE})}\n")
    assert "connected instagram:shore" in said
