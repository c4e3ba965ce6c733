"""Log-in by OpenID Connect, against a real provider over HTTP, and what attackers and broken providers send instead."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from phantoms_dagster.desk.context import Desk
from phantoms_dagster.desk.oidc import BEGUN_SECONDS, LEEWAY_SECONDS, parse_roles
from phantoms_dagster.desk.serve import check_exposed
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.settings import Settings, grouped
from phantoms_dagster_tests.integration.desk_world import Browser, DeskWorld, open_desk
from phantoms_dagster_tests.oidc_server import Claims, Provider, now, oidc_provider

NAME = "kim@example.org"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with oidc_provider() as running:
        running.person("u1", preferred_username=NAME, roles=["newsroom", "else"])
        yield running


def settings(provider: Provider, **changes: Any) -> dict[str, Any]:
    return {
        "oidc_issuer": provider.url,
        "oidc_client_id": "phantoms-desk",
        "oidc_client_secret": "a secret: with/signs",
        "oidc_roles": "newsroom=reviewer, leads = operator",
        **changes,
    }


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path, provider: Provider) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path, **settings(provider)) as opened:
        yield opened


async def left(browser: Browser, wanted: str = "/review") -> str:
    """Go to the provider; its address."""
    answer = await browser.client.get("/login/oidc", params={"next": wanted})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def back(browser: Browser, provider: Provider, subject: str = "u1", wanted: str = "/review") -> httpx.Response:
    """The whole way there and back."""
    return await browser.client.get(provider.agree(await left(browser, wanted), subject))


async def nobody(world: DeskWorld, answer: httpx.Response, words: str, status: int = 403) -> None:
    """The log-in was refused, and the page says why."""
    assert answer.status_code == status, answer.text
    assert words in re.sub(r"&#39;", "'", answer.text), answer.text
    assert 'name="password"' in answer.text  # local users go on from here
    assert world.world.rows("SELECT * FROM phantoms.desk_sessions") == []


async def test_a_person_whom_the_provider_knows_logs_in_with_the_role_of_their_claim(world: DeskWorld, provider: Provider) -> None:
    browser = world.browser()
    page = await browser.get("/login", params={"next": "/audit"})
    assert "Log in with 127.0.0.1" in page.text
    assert 'href="/login/oidc?next=%2Faudit"' in page.text
    answer = await back(browser, provider, wanted="/audit")
    assert (answer.status_code, answer.headers["location"]) == (303, "/audit")
    me = (await browser.client.get("/api/v1/me")).json()
    assert me == {"name": NAME, "role": "reviewer"}
    [user] = world.desk.users.all()
    assert (user.name, user.role, user.issuer) == (NAME, "reviewer", provider.url)
    assert [(row.who, row.action) for row in world.desk.audit.page()] == [(NAME, "log in"), (provider.url, "add user")]
    # Who is logged in goes on without being asked again.
    assert (await browser.client.get("/login/oidc", params={"next": "/review"})).headers["location"] == "/review"


async def test_the_request_has_state_nonce_and_pkce_and_the_verifier_is_its_own(world: DeskWorld, provider: Provider) -> None:
    first, second = world.browser(), world.browser()
    asked = {name: values[0] for name, values in parse_qs(urlsplit(await left(first)).query).items()}
    other = parse_qs(urlsplit(await left(second)).query)
    assert (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) == ("code", "phantoms-desk", "S256")
    assert asked["redirect_uri"] == "http://127.0.0.1:4000/login/oidc/back"
    for secret in ("state", "nonce", "code_challenge"):
        assert len(asked[secret]) >= 43
        assert asked[secret] != other[secret][0]
    await first.client.get(provider.agree(await left(first), "u1"))
    address_of_the_last = provider.asked[-1]
    assert "code_verifier" in address_of_the_last
    assert address_of_the_last["authorization"].startswith("Basic ")
    assert "client_secret" not in address_of_the_last


async def test_the_verifier_fits_the_challenge(world: DeskWorld, provider: Provider) -> None:
    browser = world.browser()
    address = await left(browser)
    await browser.client.get(provider.agree(address, "u1"))
    verifier = provider.asked[-1]["code_verifier"]
    made = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    assert parse_qs(urlsplit(address).query)["code_challenge"] == [made]
    assert verifier not in address


async def test_the_session_is_a_new_one_and_a_cookie_that_was_planted_before_is_worth_nothing(
    world: DeskWorld, provider: Provider
) -> None:
    browser, thief = world.browser(), world.browser()
    await browser.get("/login")
    planted = browser.client.cookies["phantoms_desk"]
    await back(browser, provider)
    assert browser.client.cookies["phantoms_desk"] != planted
    thief.client.cookies.set("phantoms_desk", planted)
    assert (await thief.client.get("/review")).headers["location"].startswith("/login")


async def test_a_log_out_ends_the_session_on_the_server_and_leads_to_the_provider(world: DeskWorld, provider: Provider) -> None:
    browser = world.browser()
    await back(browser, provider)
    cookie = browser.client.cookies["phantoms_desk"]
    await browser.get("/review")
    answer = await browser.post("/logout")
    assert answer.status_code == 200
    address = html.unescape(re.findall(r'http-equiv="refresh" content="0; url=([^"]+)"', answer.text)[0])
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    assert address.startswith(f"{provider.url}/oauth2/end_session?")
    assert (asked["client_id"], asked["post_logout_redirect_uri"]) == ("phantoms-desk", "http://127.0.0.1:4000/login")
    assert asked["id_token_hint"].count(".") == 2
    assert len(asked["state"]) >= 43
    # Only this browser, and only with that state, learns that both are done.
    words = "You are logged out, here and at 127.0.0.1."
    for client, state in ((browser, "x"), (browser, ""), (world.browser(), asked["state"])):
        assert words not in (await client.get("/login", params={"state": state})).text
    assert words in (await browser.get("/login", params={"state": asked["state"]})).text
    browser.client.cookies.set("phantoms_desk", cookie)
    assert (await browser.client.get("/review")).headers["location"].startswith("/login")


@pytest.mark.parametrize("trouble", ["no address", "an address of somebody else", "away"])
async def test_a_log_out_that_the_provider_cannot_end_says_that_its_session_is_open(
    world: DeskWorld, provider: Provider, trouble: str
) -> None:
    browser = world.browser()
    await back(browser, provider)
    await browser.get("/review")
    assert world.desk.oidc is not None
    world.desk.oidc._documents.clear()
    if trouble == "away":
        provider.status = 500
    else:
        provider.metadata = {"end_session_endpoint": None if trouble == "no address" else "http://evil.example/end"}
    assert (await browser.post("/logout")).headers["location"] == "/login"
    said = (await browser.get("/login")).text
    assert "Your session at 127.0.0.1 is still open; log out there, too." in said
    assert "evil" not in said
    assert world.world.rows("SELECT * FROM phantoms.desk_sessions") == []


async def test_an_id_token_too_long_for_a_cookie_is_left_out_of_the_log_out(world: DeskWorld, provider: Provider) -> None:
    browser = world.browser()
    provider.person("u1", preferred_username=NAME, roles=["newsroom"], padding=secrets.token_hex(3_000))
    provider.claims = lambda claims: {**claims, "padding": secrets.token_hex(3_000)}
    await back(browser, provider)
    await browser.get("/review")
    answer = await browser.post("/logout")
    assert answer.status_code == 200
    assert "id_token_hint" not in answer.text
    assert "post_logout_redirect_uri" in answer.text


async def test_a_person_without_a_mapped_role_is_refused_and_told_which_roles_there_are(
    world: DeskWorld, provider: Provider
) -> None:
    people: dict[str, dict[str, Any]] = {
        "u2": {"roles": ["gardeners"]},
        "u3": {"roles": []},
        "u4": {},
        "u5": {"roles": {"newsroom": True}},
        "u6": {"roles": "newsroom leads"},
        "u7": {"roles": ["operator"]},  # a role of ours is none of theirs
    }
    for subject, claims in people.items():
        provider.person(subject, preferred_username=f"{subject}@example.org", **claims)
        answer = await back(world.browser(), provider, subject)
        await nobody(world, answer, "you have no role at this desk. Ask its administrator for one of newsroom, leads in `roles`")
    assert world.desk.users.all() == []


async def test_the_role_is_that_of_the_newest_log_in_and_the_highest_of_several(world: DeskWorld, provider: Provider) -> None:
    browser = world.browser()
    await back(browser, provider)
    provider.person("u1", preferred_username="renamed@example.org", roles=["newsroom", "leads"])
    await back(world.browser(), provider)
    assert (await browser.client.get("/api/v1/me")).json() == {"name": NAME, "role": "operator"}  # and the name stays
    provider.person("u1", preferred_username=NAME, roles=[])
    answer = await back(world.browser(), provider)
    assert answer.status_code == 403


async def test_nobody_logs_in_as_another_user_of_the_same_name(world: DeskWorld, provider: Provider) -> None:
    world.add_user(NAME, "operator")
    answer = await back(world.browser(), provider)
    await nobody(world, answer, f"There is another {NAME} at this desk already")
    provider.person("u2", preferred_username="lee@example.org", roles=["newsroom"])
    provider.person("u3", preferred_username="Lee@Example.org", roles=["leads"])
    assert (await back(world.browser(), provider, "u2")).status_code == 303
    assert "There is another lee@example.org" in (await back(world.browser(), provider, "u3")).text


async def test_local_users_can_still_log_in_and_people_of_the_provider_have_no_password(
    world: DeskWorld, provider: Provider
) -> None:
    local = await world.logged_in("local", "operator")
    assert (await local.client.get("/api/v1/me")).json()["name"] == "local"
    await back(world.browser(), provider)
    for password in ("", "None", "a long enough password"):
        assert (await world.browser().log_in(NAME, password)).status_code in (401, 422)
    users = world.desk.users
    changes: tuple[Callable[[], object], ...] = (
        lambda: users.set_password(NAME, "x", actor=world_actor()),
        lambda: users.set_role(NAME, "operator", actor=world_actor()),
    )
    for change in changes:
        with pytest.raises(InvalidInput, match="logs in by an OpenID Connect provider"):
            change()


def world_actor() -> Any:
    from phantoms_dagster_tests.integration.desk_world import TESTER  # noqa: PLC0415

    return TESTER


# --- attacks


async def test_an_answer_that_is_sent_a_second_time_logs_nobody_in(world: DeskWorld, provider: Provider) -> None:
    browser = world.browser()
    returned = provider.agree(await left(browser), "u1")
    kept = browser.client.cookies["phantoms_oidc"]
    assert (await browser.client.get(returned)).status_code == 303
    world.world.write("DELETE FROM phantoms.desk_sessions")
    asked = len(provider.asked)
    thief = world.browser()
    thief.client.cookies.set("phantoms_oidc", kept)
    await nobody(world, await thief.client.get(returned), "was already used")
    await nobody(world, await browser.client.get(returned), "was started in another browser")
    assert len(provider.asked) == asked  # the provider is not even asked


async def test_an_answer_that_was_meant_for_another_browser_logs_nobody_in(world: DeskWorld, provider: Provider) -> None:
    """Otherwise an attacker could log a victim in as the attacker, and see what the victim then does."""
    attacker, victim = world.browser(), world.browser()
    returned = provider.agree(await left(attacker), "u1")
    await nobody(world, await victim.client.get(returned), "was started in another browser")
    await left(victim)  # has begun a log-in of its own
    await nobody(world, await victim.client.get(returned), "was started in another browser")
    assert provider.asked == []


async def test_an_altered_state_or_cookie_and_one_that_is_too_old_log_nobody_in(world: DeskWorld, provider: Provider) -> None:
    browser = world.browser()
    returned = urlsplit(provider.agree(await left(browser), "u1"))
    fields = {name: values[0] for name, values in parse_qs(returned.query).items()}
    kept = browser.client.cookies["phantoms_oidc"]
    for changed in ({"state": fields["state"][:-1]}, {"state": ""}, {"state": fields["state"].swapcase()}):
        thief = world.browser()
        thief.client.cookies.set("phantoms_oidc", kept)
        answer = await thief.client.get(f"{returned.path}?{urlencode({**fields, **changed})}")
        await nobody(world, answer, "was started in another browser")
    for cookie in (kept[:-2], world.desk.keys.seal("flash", fields), world.desk.keys.seal("oidc", ["x"]), "x.y"):
        thief = world.browser()
        thief.client.cookies.set("phantoms_oidc", cookie)
        await nobody(world, await thief.client.get(f"{returned.path}?{returned.query}"), "was started in another browser")
    for at in (now() - BEGUN_SECONDS - 5, now() + 60):
        old = {**world.desk.keys.unseal("oidc", kept), "at": at}  # type: ignore[dict-item]
        thief = world.browser()
        thief.client.cookies.set("phantoms_oidc", world.desk.keys.seal("oidc", old))
        await nobody(world, await thief.client.get(f"{returned.path}?{returned.query}"), "took too long")
    assert provider.asked == []


WRONG: dict[str, Callable[[Claims], Claims]] = {
    "another nonce": lambda claims: {**claims, "nonce": "x" * 43},
    "no nonce": lambda claims: {name: value for name, value in claims.items() if name != "nonce"},
    "another audience": lambda claims: {**claims, "aud": "another-client"},
    "an audience of others, too, without saying whose it is": lambda claims: {**claims, "aud": ["phantoms-desk", "other"]},
    "made for another client": lambda claims: {**claims, "aud": ["phantoms-desk", "other"], "azp": "other"},
    "no audience": lambda claims: {**claims, "aud": []},
    "another issuer": lambda claims: {**claims, "iss": "https://evil.example"},
    "over": lambda claims: {**claims, "iat": now() - 9000, "exp": now() - LEEWAY_SECONDS - 5},
    "without an end": lambda claims: {name: value for name, value in claims.items() if name != "exp"},
    "of tomorrow": lambda claims: {**claims, "nbf": now() + 86_400},
    "no subject": lambda claims: {name: value for name, value in claims.items() if name != "sub"},
    "an empty subject": lambda claims: {**claims, "sub": ""},
    "a subject that is no text": lambda claims: {**claims, "sub": {"a": 1}},
    "of another access token": lambda claims: {**claims, "at_hash": "x" * 22},
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_an_id_token_that_says_something_wrong_logs_nobody_in(world: DeskWorld, provider: Provider, wrong: str) -> None:
    provider.claims = WRONG[wrong]
    await nobody(world, await back(world.browser(), provider), "is not valid. You were not logged in")
    assert world.desk.users.all() == []


async def test_an_id_token_that_is_signed_wrongly_logs_nobody_in(world: DeskWorld, provider: Provider) -> None:
    def altered(claims: Claims) -> str:
        head, _, signature = provider.signed(claims).split(".")
        return ".".join((head, provider.signed({**claims, "roles": ["leads"]}).split(".")[1], signature))

    def stripped(claims: Claims) -> str:
        return f"{provider.signed(claims).rpartition('.')[0]}."

    nonsense = (lambda _: "no.token", lambda _: "")
    for sign in (altered, stripped, provider.signed_by_nobody, provider.signed_with_the_public_key, *nonsense):
        provider.sign = sign
        answer = await back(world.browser(), provider)
        assert answer.status_code == 403, sign
        assert world.world.rows("SELECT * FROM phantoms.desk_sessions") == []
    # Signed well, by a key that the provider does not publish.
    assert world.desk.oidc is not None
    provider.sign, provider.jwks = provider.signed, {"keys": []}
    world.desk.oidc._documents.clear()  # those that it has published so far are kept for an hour
    assert (await back(world.browser(), provider)).status_code == 403
    world.desk.oidc._documents.clear()
    provider.jwks = {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "own"}, {"kty": "RSA"}, "x"]}
    assert (await back(world.browser(), provider)).status_code == 403
    assert world.desk.users.all() == []


async def test_a_new_key_of_the_provider_is_asked_for_and_believed(
    world: DeskWorld, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await back(world.browser(), provider)).status_code == 303
    monkeypatch.setattr("phantoms_dagster.desk.oidc._KEYS_AGAIN_SECONDS", 0.0)
    provider.claims = lambda claims: claims  # signs with its own key from now on
    assert (await back(world.browser(), provider)).status_code == 303


@pytest.mark.parametrize("off", [-LEEWAY_SECONDS + 20, LEEWAY_SECONDS - 20])
async def test_a_clock_that_is_a_little_wrong_keeps_nobody_out(world: DeskWorld, provider: Provider, off: int) -> None:
    provider.claims = lambda claims: {**claims, "iat": now() + off, "nbf": now() + off, "exp": now() + min(off, 0) + 5}
    assert (await back(world.browser(), provider)).status_code == 303


async def test_an_answer_of_another_provider_is_none(world: DeskWorld, provider: Provider) -> None:
    """The mix-up attack: an attacker's provider answers where ours was asked, or has our code sent to itself."""
    browser = world.browser()
    returned = provider.agree(await left(browser), "u1")
    await nobody(world, await browser.client.get(f"{returned}&iss=https%3A%2F%2Fevil.example"), "came from a different provider")
    assert provider.asked == []
    provider.metadata = {"authorization_response_iss_parameter_supported": True}
    fresh = Desk.of(world.desk.settings)
    assert fresh.oidc is not None
    object.__setattr__(world.desk, "oidc", fresh.oidc)
    fresh.close()
    await nobody(world, await back(world.browser(), provider), "did not identify itself in its answer")
    assert provider.asked == []
    browser = world.browser()
    returned = provider.agree(await left(browser), "u1")
    answer = await browser.client.get(f"{returned}&{urlencode({'iss': provider.url})}")
    assert answer.status_code == 303


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://evil.example/token"},
        {"jwks_uri": "http://evil.example/jwks"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": None},
    ],
)
async def test_a_provider_that_names_addresses_of_others_gets_no_secret(
    world: DeskWorld, provider: Provider, metadata: dict[str, Any]
) -> None:
    provider.metadata = metadata
    browser = world.browser()
    answer = await browser.client.get("/login/oidc")
    if answer.status_code == 303:
        answer = await browser.client.get(provider.agree(answer.headers["location"], "u1"))
    await nobody(world, answer, "127.0.0.1", 503)


async def test_the_way_back_leads_to_no_other_site(world: DeskWorld, provider: Provider) -> None:
    for wanted in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/\r\nX: y"):
        answer = await back(world.browser(), provider, wanted=wanted)
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), wanted
    forged = world.desk.keys.seal("session", {"next": "https://evil.example"})
    browser = world.browser()
    browser.client.cookies.set("phantoms_oidc", forged)
    assert "evil" not in (await browser.client.get("/login/oidc/back", params={"next": "https://evil.example"})).text


# --- trouble


async def test_a_person_who_does_not_agree_and_an_answer_that_is_broken_are_told_so(world: DeskWorld, provider: Provider) -> None:
    browser = world.browser()
    answer = await browser.client.get(provider.refuse(await left(browser)))
    assert (answer.status_code, 'name="password"' in answer.text) == (403, True)
    browser = world.browser()
    state = parse_qs(urlsplit(await left(browser)).query)["state"][0]
    hostile = {"state": state, "error": "<script>alert(1)</script>", "error_description": "<b>"}
    answer = await browser.client.get("/login/oidc/back", params=hostile)
    await nobody(world, answer, "did not log you in (scriptalert1script)")
    browser = world.browser()
    state = parse_qs(urlsplit(await left(browser)).query)["state"][0]
    await nobody(world, await browser.client.get("/login/oidc/back", params={"state": state}), "sent no code")
    browser = world.browser()
    state = parse_qs(urlsplit(await left(browser)).query)["state"][0]
    answer = await browser.client.get("/login/oidc/back", params={"state": state, "code": "made-up"})
    await nobody(world, answer, "refused this desk (invalid_grant)")


async def test_a_provider_that_is_away_is_named_in_words_and_local_users_get_in(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with oidc_provider() as gone:
        pass
    async with open_desk(database_url, redis_url, tmp_path, **settings(gone)) as world:
        answer = await world.browser().client.get("/login/oidc")
        await nobody(
            world, answer, "127.0.0.1 does not answer (ConnectError). Try again in a moment, or log in with a password.", 503
        )
        assert (await world.logged_in("local")).csrf


@pytest.mark.parametrize("status", [404, 500])
async def test_a_provider_that_breaks_in_between_is_named_in_words(world: DeskWorld, provider: Provider, status: int) -> None:
    browser = world.browser()
    returned = provider.agree(await left(browser), "u1")
    provider.status = status
    answer = await browser.client.get(returned)
    assert answer.status_code == (503 if status == 500 else 403)
    assert 'name="password"' in answer.text
    assert world.world.rows("SELECT * FROM phantoms.desk_sessions") == []


async def test_the_secret_reaches_no_page_and_no_log(
    world: DeskWorld, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    browser = world.browser()
    await back(browser, provider)
    provider.status = 500
    broken = await world.browser().client.get("/login/oidc")
    code = provider.asked[-1]["code"]
    for text in ((await browser.get("/audit")).text, broken.text, repr(world.desk.settings)):
        assert "a secret: with/signs" not in text
        assert code not in text
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("phantoms")]
    assert not any("with/signs" in line or code in line for line in ours)


async def test_a_desk_with_a_provider_is_open_to_nobody_even_without_users(world: DeskWorld) -> None:
    assert (await world.browser().client.get("/review")).headers["location"].startswith("/login")
    assert (await world.browser().client.get("/api/v1/me")).status_code == 401


async def test_a_role_inside_other_claims_a_name_by_mail_and_roles_of_userinfo(
    database_url: str, redis_url: str, tmp_path: Path, provider: Provider
) -> None:
    changes = {"oidc_role_claim": "realm_access.roles", "oidc_name_claim": "email"}
    async with open_desk(database_url, redis_url, tmp_path, **settings(provider, **changes)) as world:
        provider.person("m1", email="mia@example.org", email_verified=True, realm_access={"roles": ["leads"]})
        provider.claims = lambda claims: {name: value for name, value in claims.items() if name not in ("realm_access", "email")}
        browser = world.browser()
        assert (await back(browser, provider, "m1")).status_code == 303
        assert (await browser.client.get("/api/v1/me")).json() == {"name": "mia@example.org", "role": "operator"}
        provider.person("m2", email="boss@example.org", email_verified=False, realm_access={"roles": ["leads"]})
        assert "has not verified" in (await back(world.browser(), provider, "m2")).text


async def test_a_desk_without_a_secret_names_itself_and_proves_itself_by_its_verifier(
    database_url: str, redis_url: str, tmp_path: Path, provider: Provider
) -> None:
    async with open_desk(database_url, redis_url, tmp_path, **settings(provider, oidc_client_secret=None)) as world:
        await back(world.browser(), provider)  # this provider takes no such desk, and says so
        sent = provider.asked[-1]
        assert (sent["client_id"], sent["authorization"], "client_secret" in sent) == ("phantoms-desk", "", False)
        assert len(sent["code_verifier"]) >= 43


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"oidc_client_id": None}, "PHANTOMS_OIDC_CLIENT_ID"),
        ({"oidc_issuer": "http://login.example.org"}, "begins with https://"),
        ({"oidc_issuer": "login.example.org"}, "begins with https://"),
        ({"oidc_roles": "newsroom=king"}, "THEIRS=OURS"),
        ({"oidc_roles": " , "}, "PHANTOMS_OIDC_ROLES is empty"),
    ],
)
def test_settings_that_cannot_be_meant_keep_the_desk_from_starting(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    given = {"home": tmp_path, "oidc_issuer": "https://login.example.org", "oidc_client_id": "desk", **changes}
    with pytest.raises(InvalidInput, match=re.escape(words)):
        Desk.of(Settings(**grouped({"database_url": "postgresql://nobody@127.0.0.1:1/x", **given})))


def test_a_desk_with_a_provider_may_be_reached_by_others(tmp_path: Path) -> None:
    oidc = {"issuer": "https://login.example.org", "client_id": "desk"}
    database = {"url": "postgresql://nobody@127.0.0.1:1/x"}
    desk = Desk.of(Settings(paths={"home": tmp_path}, database=database, oidc=oidc, desk={"host": "0.0.0.0"}))
    check_exposed(desk)
    desk.close()


def test_a_role_of_the_provider_may_have_any_sign_but_a_comma() -> None:
    assert parse_roles("a=b=viewer,/groups/é leads =operator") == {"a=b": "viewer", "/groups/é leads": "operator"}
