"""Upload URLs in the ledger of posts: encrypted with the accounts' keys, and readable with the key."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from phantoms_dagster.domain.claims import Claim
from phantoms_dagster.domain.errors import InvalidInput, NotYet
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.store.ledgers import PostgresLedgers, PostgresPostJournal
from phantoms_dagster.store.sealed_urls import SealedUrls
from phantoms_dagster.store.vault import Vault, WrongKey, new_key
from phantoms_dagster_tests.integration.stage_world import World, media_file, open_world

URL = "https://upload.example.org/video?upload_id=17&upload_token=Xza123"
STAGES = ("script", "voiceover", "rendered_video", "approval", "youtube/variant")


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


def urls(*keys: str) -> SealedUrls:
    return SealedUrls(Vault(lambda: keys, "the test"))


async def journal(ledgers: PostgresLedgers, claim: Claim) -> PostgresPostJournal:
    return await ledgers.post(claim, account="main", marker="m", video=media_file("v"), caption="c", sandbox=False)


async def test_an_upload_url_is_encrypted_in_the_table_and_the_next_runner_reads_it(world: World) -> None:
    [key] = world.add()
    await world.carry([key], *STAGES)
    _, claim = await world.claimed("youtube/post", key, owner="poster")
    secret = new_key()
    first = await journal(PostgresLedgers(world.async_engine, urls(secret)), claim)
    saved = await first.save(PostState.OPENED, handle={"upload_url": URL, "publish_id": "p17", "size": 3})
    assert saved.handle == {"upload_url": URL, "publish_id": "p17", "size": 3}
    [row] = world.rows("SELECT handle FROM phantoms.posts")
    assert row["handle"]["publish_id"] == "p17"
    assert row["handle"]["upload_url"].startswith("sealed:")
    assert "Xza123" not in str(row["handle"])
    # After a rotation the new key is first, and the old one still decrypts.
    again = await journal(PostgresLedgers(world.async_engine, urls(new_key(), secret)), claim)
    assert again.record.handle == saved.handle


async def test_a_post_whose_url_no_key_decrypts_waits_and_does_not_start_over(world: World) -> None:
    [key] = world.add()
    await world.carry([key], *STAGES)
    _, claim = await world.claimed("youtube/post", key, owner="poster")
    first = await journal(PostgresLedgers(world.async_engine, urls(new_key())), claim)
    await first.save(PostState.OPENED, handle={"upload_url": URL})
    with pytest.raises(NotYet, match="cannot be continued: no key in the test decrypts"):
        await journal(PostgresLedgers(world.async_engine, urls(new_key())), claim)


async def test_a_url_from_before_urls_were_encrypted_is_read_as_it_is(world: World) -> None:
    [key] = world.add()
    await world.carry([key], *STAGES)
    _, claim = await world.claimed("youtube/post", key, owner="poster")
    await (await journal(PostgresLedgers(world.async_engine), claim)).save(PostState.OPENED, handle={"upload_url": URL})
    again = await journal(PostgresLedgers(world.async_engine, urls(new_key())), claim)
    assert again.record.handle == {"upload_url": URL}


def test_without_a_key_urls_stay_readable() -> None:
    def no_keys() -> list[str]:
        raise WrongKey("token.keys is not on this machine")

    sealed = SealedUrls(Vault(no_keys, "token.keys"))
    assert sealed.seal({"upload_url": URL}) == {"upload_url": URL}
    with pytest.raises(InvalidInput):
        sealed.open({"upload_url": "sealed:gAAAA"})
