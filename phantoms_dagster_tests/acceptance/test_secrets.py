"""No secret of a whole run is anywhere in clear: not in logs, files, tables, Redis, nor in the arguments of a process.

A stack runs with connected accounts against the sandbox's authorization servers. A recorder in front of the sandbox notes every
token, key, code and signed URL that goes over the wire. Then everything that the run left behind is searched for each of them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import psycopg
import pytest
import redis
from aiohttp import web
from psycopg.conninfo import make_conninfo
from sqlalchemy import text

from phantoms_dagster.domain.models import Brief, Platform
from phantoms_dagster.sandbox.instagram.people import APP_ID, APP_SECRET
from phantoms_dagster.sandbox.tiktok.app import CLIENT_KEY
from phantoms_dagster.sandbox.youtube.google_token import CLIENT_ID, CLIENT_SECRET
from phantoms_dagster.wiring import Services
from phantoms_dagster_tests.acceptance.conftest import StackProcess, wait_for
from phantoms_dagster_tests.sandbox_thread import Running, sandbox_thread

pytestmark = pytest.mark.timeout(900)

CHANNELS = """
channels:
  facts:
    title: Facts
    brand_voice: calm
    accounts: {youtube: ocean, tiktok: reef, instagram: shore}
    tiktok: {privacy: SELF_ONLY}
"""
OPENAI_KEY, SHOTSTACK_KEY = "sandbox-sk-proj-Zq81LwPp", "sandbox-shotstack-5kRzzQ"
NO_SECRETS = {"sandbox-ocean", "sandbox-reef", "sandbox-shore", "sandbox-key"}  # what is sent to the sandbox without an account
APPS = {"YOUTUBE": (CLIENT_ID, CLIENT_SECRET), "TIKTOK": (CLIENT_KEY, CLIENT_SECRET), "INSTAGRAM": (APP_ID, APP_SECRET)}
# Names of form fields, parameters and members of answers whose values are secrets.
SECRET_NAMES = re.compile(
    r"(access|refresh|upload)_token|client_secret|code(_verifier)?|upload_id|appsecret_proof|x-amz-signature", re.I
)
SECRET_URLS = re.compile(r"upload_url|location", re.I)
SHORTEST = 8


@dataclass
class Recorder:
    """What went over the wire. `secrets`: each secret, and where it was seen first."""

    secrets: dict[str, str] = field(default_factory=dict)
    echoes: list[str] = field(default_factory=list)
    armed: list[str] = field(default_factory=list)

    def note(self, value: str, where: str) -> None:
        if len(value) >= SHORTEST and value not in NO_SECRETS:
            self.secrets.setdefault(value, where)

    def note_url(self, url: str, where: str) -> None:
        """A URL with a secret in its parameters. A URL without one needs the token as well."""
        parts = urlsplit(url)
        if not any(SECRET_NAMES.fullmatch(name) for name, _ in parse_qsl(parts.query)):
            return
        self.note(url, where)
        self.note(parts.query, where)
        for name, value in parse_qsl(parts.query):
            # The upload_id of TikTok is the end of the publish_id, by which the post is known until it has a public id.
            if SECRET_NAMES.fullmatch(name) and not (name == "upload_id" and "upload_token" in parts.query):
                self.note(value, where)

    def pairs(self, value: Any, where: str) -> None:
        if isinstance(value, list):
            for one in value:
                self.pairs(one, where)
        elif isinstance(value, dict):
            for name, one in value.items():
                if isinstance(one, str) and SECRET_NAMES.fullmatch(name) and name != "code":
                    self.note(one, f"{where} {name}")
                elif isinstance(one, str) and SECRET_URLS.fullmatch(name):
                    self.note_url(one, f"{where} {name}")
                else:
                    self.pairs(one, where)

    async def request(self, request: web.Request) -> str:
        where = f"{request.method} {request.path}"
        given = request.headers.get("Authorization", "")
        for credential in (given.partition(" ")[2], request.headers.get("x-api-key", "")):
            self.note(credential, where)
        self.note_url(str(request.url), where)
        if request.content_type in ("application/x-www-form-urlencoded", "application/json"):
            body = (await request.read()).decode()
            if request.content_type.endswith("json"):
                self.pairs(json.loads(body or "{}"), where)
            else:
                for name, value in parse_qsl(body):
                    if SECRET_NAMES.fullmatch(name):
                        self.note(value, where)
        return given or request.headers.get("x-api-key", "")

    @web.middleware
    async def middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Note what comes and goes, and repeat the credentials in an error where the test wants that."""
        if request.path.startswith("/_sandbox"):
            return await handler(request)  # type: ignore[no-any-return]
        credential = await self.request(request)
        name = request.match_info.route.name or ""
        if name in self.armed:
            self.echoes.append(name)
            said = f"refused: {credential} on {request.url} with {(await request.read())[:500]!r}"
            error = {"message": said, "errors": [{"reason": "invalid", "message": said}], "code": 400, "type": "OAuthException"}
            return web.json_response({"error": error, "response": said}, status=400)
        answer: web.StreamResponse = await handler(request)
        where = f"answer of {request.method} {request.path}"
        if "Location" in answer.headers:
            self.note_url(answer.headers["Location"], where)
        if isinstance(answer, web.Response) and answer.content_type == "application/json" and isinstance(answer.body, bytes):
            self.pairs(json.loads(answer.body or b"{}"), where)
        return answer


@dataclass
class Processes:
    """The command lines and environments of the stack's processes, sampled while it runs."""

    home: Path
    seen: dict[str, bytes] = field(default_factory=dict)

    @contextmanager
    def sampled(self) -> Iterator[None]:
        end = threading.Event()

        def sample() -> None:
            while not end.wait(0.1):
                self.sample()

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    def sample(self) -> None:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                environment, line = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
            except OSError:  # it has ended, or belongs to another user
                continue
            if str(self.home).encode() in environment + line:
                self.seen.setdefault(f"environment of {line[:80]!r}", environment)
                self.seen.setdefault(f"command line {entry.name} {line[:80]!r}", line)


def database_contents(url: str) -> dict[str, bytes]:
    """Every row of every table of every database of the server, by its name."""
    url = url.replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        databases = [
            row[0] for row in connection.execute("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate")
        ]
    found = {}
    for database in databases:
        with psycopg.connect(make_conninfo(url, dbname=database)) as connection:
            tables = connection.execute(
                "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE' "
                "AND table_schema NOT IN ('pg_catalog', 'information_schema')"
            ).fetchall()
            for schema, table in tables:
                rows = connection.execute(f'SELECT * FROM "{schema}"."{table}"').fetchall()
                found[f"table {database}.{schema}.{table}"] = b"\n".join(plain(value) for row in rows for value in row)
    return found


def redis_contents(url: str) -> dict[str, bytes]:
    """Every key and value in Redis."""
    found = {}
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(count=1_000):
            match client.type(key):
                case b"string":
                    value: Any = client.get(key)
                case b"hash":
                    value = client.hgetall(key)
                case b"list":
                    value = client.lrange(key, 0, -1)
                case b"set":
                    value = list(client.smembers(key))
                case b"zset":
                    value = client.zrange(key, 0, -1)
                case b"stream":
                    value = client.xrange(key)
                case b"none":
                    value = b""  # the key has expired since it was listed; its name is still searched
                case other:
                    raise AssertionError(f"{key!r} has the type {other!r}")
            found[f"Redis key {key!r}"] = key + b"\n" + plain(value)
    return found


def plain(value: Any) -> bytes:
    """The bytes of a value, unpacked and in clear. RQ compresses what it stores."""
    match value:
        case bytes() | memoryview():
            given = bytes(value)
            try:
                return given + b"\n" + zlib.decompress(given)
            except zlib.error:
                return given
        case dict():
            return b"\n".join(plain(part) for pair in value.items() for part in pair)
        case list() | tuple():
            return b"\n".join(plain(part) for part in value)
        case _:
            return str(value).encode()


def file_contents(home: Path) -> dict[str, bytes]:
    """Every file of the data directory, without the servers' own files and the key that a person is told to guard."""
    guarded = ("token.keys", "secrets")
    servers = ("embedded", "media")
    return {
        f"file {path.relative_to(home)}": path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and path.name not in guarded and path.relative_to(home).parts[0] not in (*servers, *guarded)
    }


def found_in(places: dict[str, bytes], secrets: dict[str, str]) -> list[str]:
    """Where a secret is, as it is or as it would be in a URL or in JSON."""
    forms = [
        (where, form) for secret, where in secrets.items() for form in {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}
    ]
    return sorted(
        {f"{name}: the secret of {where}" for name, content in places.items() for where, form in forms if form.encode() in content}
    )


@dataclass
class Run:
    """The stack, the sandbox with its recorder, and what commands printed."""

    stack: StackProcess
    sandbox: Running
    recorder: Recorder
    processes: Processes
    printed: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {**self.stack.environment, "PHANTOMS_HOME": str(self.stack.home), "PHANTOMS_LOG_LEVEL": "DEBUG"}

    def phantoms(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        """A command, as a person types it."""
        command = [sys.executable, "-m", "phantoms_dagster.cli.main", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=180)
        self.printed += [done.stdout, done.stderr]
        assert done.returncode in codes, done.stderr + done.stdout
        return done.stdout

    def connect(self, platform: str) -> None:
        """Connect the platform's account by --paste. Its owner accepts at the sandbox's authorization server."""
        command = [sys.executable, "-m", "phantoms_dagster.cli.main", "accounts", "connect", platform, "--paste"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=self.environment, text=True, **pipes) as process:
            assert process.stderr is not None
            url = next(line.strip() for line in process.stderr if line.startswith("http"))
            answer = httpx.get(f"{url}&auto=accept&account=owner-of-{platform}")
            place = answer.headers["location"]
            self.recorder.note(dict(parse_qsl(urlsplit(place).query))["code"], f"the consent to {platform}")
            out, err = process.communicate(f"{place}\n", timeout=120)
            self.printed += [out, err]
            assert process.returncode == 0, err + out

    @contextmanager
    def refusing(self, *routes: str) -> Iterator[None]:
        """Refuse each request to these routes, and repeat its credentials in the error."""
        self.recorder.armed += routes
        try:
            yield
        finally:
            self.recorder.armed.clear()

    def letters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.phantoms("dead-letters", "list", "--json"))["letters"]
        return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A stack that runs with an app registered at each platform. The keys are in files, as docs/security.md advises."""
    folder = tmp_path_factory.mktemp("secrets")
    home, keys, recorder = folder / "home", folder / "keys", Recorder()
    home.mkdir()
    keys.mkdir()
    (home / "channels.yaml").write_text(CHANNELS)
    secrets = {f"PHANTOMS_{name}_CLIENT_SECRET": secret for name, (_, secret) in APPS.items()}
    secrets |= {"PHANTOMS_OPENAI_API_KEY": OPENAI_KEY, "PHANTOMS_SHOTSTACK_API_KEY": SHOTSTACK_KEY}
    for name, secret in secrets.items():
        (keys / name).write_text(secret)
    with sandbox_thread(folder, recorder.middleware) as sandbox:
        url = sandbox.url
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PHANTOMS_", "DAGSTER_"))}
        environment |= {f"{name}_FILE": str(keys / name) for name in secrets}
        environment |= {f"PHANTOMS_{name}_CLIENT_ID": client for name, (client, _) in APPS.items()}
        environment |= {
            "PHANTOMS_SANDBOX_URL": url,
            "PHANTOMS_OPENAI_BASE_URL": f"{url}/openai/v1",
            "PHANTOMS_SHOTSTACK_BASE_URL": f"{url}/shotstack",
            "PHANTOMS_YOUTUBE_BASE_URL": url,
            "PHANTOMS_YOUTUBE_TOKEN_URL": url,
            "PHANTOMS_YOUTUBE_AUTHORIZE_URL": f"{url}/o/oauth2/v2/auth",
            "PHANTOMS_TIKTOK_BASE_URL": f"{url}/tiktok",
            "PHANTOMS_TIKTOK_AUTHORIZE_URL": f"{url}/tiktok/v2/auth/authorize/",
            "PHANTOMS_INSTAGRAM_BASE_URL": f"{url}/instagram",
            "PHANTOMS_INSTAGRAM_TOKEN_URL": f"{url}/instagram",
            "PHANTOMS_INSTAGRAM_UPLOAD_URL": f"{url}/instagram/rupload",
            "PHANTOMS_INSTAGRAM_AUTHORIZE_URL": f"{url}/instagram/oauth/authorize",
            "PHANTOMS_INSTAGRAM_REDIRECT_URI": "https://localhost:8400/callback/",
            "PHANTOMS_ATTEMPTS": "2",
            "PHANTOMS_GIVE_UP_MINUTES": "0",
            "PHANTOMS_BACKOFF_SECONDS": "0.1",
            "PHANTOMS_RENDER_POLL_SECONDS": "0.5",
            "PHANTOMS_LOG_LEVEL": "DEBUG",
        }
        sandbox.sandbox.configure({"instagram.login": "instagram", "instagram.old_token_dies": False})
        processes = Processes(home)
        stack = StackProcess(home, environment)
        with processes.sampled():
            try:
                stack.start()
                yield Run(stack, sandbox, recorder, processes)
            finally:
                if stack.process is not None and stack.process.poll() is None:
                    stack.stop()


@pytest.fixture(scope="module")
def places(run: Run) -> dict[str, bytes]:
    """What a whole run left behind: connected accounts, a video with its posts, refusals of every kind, renewed tokens."""
    for platform in Platform.usual():
        run.connect(platform)
    services = run.stack.services
    try:
        [good] = _added(services, "Why octopuses have three hearts")
        wait_for(lambda: good in services.decisions().undecided(), pause=0.25)
        # The posts meet refused tokens of YouTube and TikTok, and renew them. Instagram's are renewed by their age alone.
        httpx.post(f"{run.sandbox.url}/_sandbox/advance", json={"seconds": 2 * 86_400}).raise_for_status()
        with services.engine.begin() as connection:
            connection.execute(text("UPDATE phantoms.accounts SET access_issued_at = now() - interval '8 days'"))
        services.decisions().decide(good, approved=True, reviewer="ann", via="cli")
        wait_for(lambda: _ended(services, good), pause=0.25)

        with run.refusing("openai.chat"):
            [bad] = _added(services, "How eels travel")
            wait_for(lambda: any(letter["stage"] == "script" for letter in run.letters()))
        run.phantoms("dead-letters", "replay", "--all")
        wait_for(lambda: bad in services.decisions().undecided(), pause=0.25)
        with run.refusing("youtube.open", "tiktok.init", "instagram.create"):
            services.decisions().decide(bad, approved=True, reviewer="ann", via="cli")
            wait_for(lambda: _ended(services, bad), pause=0.25)

        with run.refusing("shotstack.upload"):
            _added(services, "Why the sky is blue")
            wait_for(lambda: any(letter["stage"] == "rendered_video" for letter in run.letters()))
        for words in (
            ("accounts",),
            ("accounts", "check"),
            ("doctor", "--json"),
            ("show", bad),
            ("show", good, "--json"),
            ("posts", "list"),
            ("posts", "show", good, "tiktok"),
            ("posts", "show", good, "youtube", "--json"),
            ("dead-letters", "list"),
            ("logs", good),
            ("settings",),
        ):
            run.phantoms(*words, codes=(0, 1))
        settings = run.stack.settings
        assert settings.database.url is not None
        assert settings.redis.url is not None
        return {
            **file_contents(run.stack.home),
            **database_contents(settings.database.url.get_secret_value()),
            **redis_contents(settings.redis.url.get_secret_value()),
            **run.processes.seen,
            "output of commands": "\n".join(run.printed).encode(),
        }
    finally:
        services.close()


def _added(services: Services, *titles: str) -> list[str]:
    briefs = [Brief(title=title, channel="facts", platforms=Platform.usual()) for title in titles]
    return [added.key for added in services.catalogue().add(briefs, source="test")]


def _ended(services: Services, key: str) -> bool:
    """Whether each post of the video is out or has failed."""
    [row] = services.catalogue().videos(keys=[key])
    return all(row.states[f"{platform}/post"] in ("done", "failed") for platform in Platform.usual())


def test_a_connected_account_posts_a_video_on_each_platform_and_renews_its_token(run: Run, places: dict[str, bytes]) -> None:
    del places
    posts = [entry for entry in run.sandbox.sandbox.ledger if entry["kind"] == "post"]
    assert sorted((post["platform"], post["account"]) for post in posts) == sorted((p, f"owner-of-{p}") for p in Platform.usual())
    issued = [e["platform"] for e in run.sandbox.sandbox.ledger if e["kind"].startswith("oauth.") and e.get("token") == "access"]
    assert {platform for platform in issued if issued.count(platform) > 1} == set(Platform.usual())


def test_the_run_met_refusals_that_repeat_credentials(run: Run, places: dict[str, bytes]) -> None:
    assert {"openai.chat", "youtube.open", "tiktok.init", "instagram.create", "shotstack.upload"} == set(run.recorder.echoes)
    assert places["table phantoms.phantoms.dead_letters"].count(b"***") >= len(set(run.recorder.echoes))
    assert b"sealed:" in places["table phantoms.phantoms.posts"]


def test_no_secret_of_a_whole_run_is_anywhere_in_clear(run: Run, places: dict[str, bytes]) -> None:
    """Logs, files, every row of both databases, every key and value of Redis, arguments and environments, and what was printed."""
    seen = set(run.recorder.secrets.values())
    assert {
        "answer of POST /token access_token",
        "answer of POST /token refresh_token",
        "answer of POST /upload/youtube/v3/videos",
        "answer of POST /tiktok/v2/oauth/token/ refresh_token",
        "answer of POST /tiktok/v2/post/publish/video/init/ upload_url",
        "answer of POST /instagram/oauth/access_token access_token",
        "answer of GET /instagram/refresh_access_token access_token",
    } <= seen
    found = found_in(places, run.recorder.secrets)
    assert not found, "\n".join(found)


def test_a_secret_that_is_planted_in_any_of_these_places_is_found(run: Run, places: dict[str, bytes]) -> None:
    """The control. Without it a search that looks in the wrong place would find nothing, too."""
    del places  # the run is over
    planted = "planted/secret+Zq81LwPp"
    settings = run.stack.settings
    assert settings.database.url is not None
    assert settings.redis.url is not None
    database_url, redis_url = settings.database.url.get_secret_value(), settings.redis.url.get_secret_value()
    with (run.stack.home / "logs" / "workers.log").open("a") as log:
        log.write(f"GET https://example.org/?token={quote(planted, safe='')}\n")
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        handle = json.dumps({"kept": [{"url": planted}]})
        connection.execute("ALTER TABLE phantoms.posts DISABLE TRIGGER posts_guard")
        connection.execute("UPDATE phantoms.posts SET handle = %s WHERE id = (SELECT min(id) FROM phantoms.posts)", (handle,))
    with redis.Redis.from_url(redis_url) as client:
        client.hset("planted", "data", zlib.compress(f"a job with {planted}".encode()))
    asleep = [sys.executable, "-c", "import time; time.sleep(600)", planted]
    with subprocess.Popen(asleep, env={**run.environment, "PLANTED": planted}) as process:
        wait_for(lambda: planted.encode() in Path(f"/proc/{process.pid}/cmdline").read_bytes(), pause=0.05)
        run.processes.sample()
        process.kill()
    found = found_in(
        {**file_contents(run.stack.home), **database_contents(database_url), **redis_contents(redis_url), **run.processes.seen},
        {planted: "the test"},
    )
    kinds = ("Redis key b'planted'", "command line ", "environment of ", "file logs/workers.log", "table phantoms.phantoms.posts")
    assert [kind for kind in kinds if not any(place.startswith(kind) for place in found)] == []
