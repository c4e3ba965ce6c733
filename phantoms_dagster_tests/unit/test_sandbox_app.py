"""With the app that the sandbox knows, an account is connected in the sandbox, and no address has to be set."""

from __future__ import annotations

import pytest

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.sandbox.instagram.people import APP_ID
from phantoms_dagster.sandbox.tiktok.app import CLIENT_KEY
from phantoms_dagster.sandbox.youtube.google_token import CLIENT_ID
from phantoms_dagster.settings import Settings, grouped
from phantoms_dagster.wiring.endpoints import Endpoints

URL = "http://127.0.0.1:8321"
APPS = [
    ("youtube", CLIENT_ID, {"authorize_url": f"{URL}/o/oauth2/v2/auth", "token_url": URL, "base_url": URL}),
    ("tiktok", CLIENT_KEY, {"authorize_url": f"{URL}/tiktok/v2/auth/authorize/", "base_url": f"{URL}/tiktok"}),
    ("instagram", APP_ID, {"token_url": f"{URL}/instagram", "redirect_uri": "https://localhost:8400/callback/"}),
]


def endpoints(**values: str) -> Endpoints:
    return Endpoints(Settings(**grouped({"sandbox_url": URL, **values})), lambda: set(map(str, Platform)))


@pytest.mark.parametrize(("name", "app", "addresses"), APPS)
def test_the_addresses_of_the_sandboxs_app_are_those_of_the_sandbox(name: str, app: str, addresses: dict[str, str]) -> None:
    found = endpoints(**{f"{name}_client_id": app})
    assert {setting: found.setting(name, setting) for setting in addresses} == addresses
    assert found.base_url(name) == f"{URL}{'' if name == 'youtube' else f'/{name}'}"
    assert name in found.sandbox_needed, "the sandbox runs for its accounts"


@pytest.mark.parametrize(("name", "app", "addresses"), APPS)
def test_another_app_and_an_address_that_a_person_set_are_never_sent_to_the_sandbox(
    name: str, app: str, addresses: dict[str, str]
) -> None:
    real = endpoints(**{f"{name}_client_id": "an-app-of-ours"})
    assert not any(str(real.setting(name, setting)).startswith(URL) for setting in addresses)
    assert name not in real.sandbox_needed
    mine = endpoints(**{f"{name}_client_id": app, f"{name}_base_url": "https://proxy.example"})
    assert mine.base_url(name) == "https://proxy.example"
