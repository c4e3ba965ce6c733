"""The kill matrix: for each route, verb and fault there is one post, our ledger agrees, and no person is needed.

`docs/never-twice.md` is its outcome. `python -m phantoms_dagster_tests.contract.kill_matrix` rewrites that page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from phantoms_dagster.domain.paid_job import PaidService
from phantoms_dagster.domain.publication import NotPublished, PostRecord, PublishVerbs
from phantoms_dagster.platforms.instagram.publisher import InstagramPost
from phantoms_dagster.registry.providers import RENDERERS
from phantoms_dagster_tests.contract.kill_matrix.cells import (
    FAULTS,
    KILLS,
    LOST_ANSWER,
    run_cell,
    run_route,
    why_not,
)
from phantoms_dagster_tests.contract.kill_matrix.page import PAGE, applicable, section, summary
from phantoms_dagster_tests.contract.kill_matrix.routes import (
    AFTER_SAVE,
    ALL_ROUTES,
    PAID_ROUTES,
    PAID_VERBS,
    ROUTES,
    VERBS,
    small_chunks,
    uncovered,
)

REWRITE = "the page and the outcome differ: run `python -m phantoms_dagster_tests.contract.kill_matrix`"


@pytest.fixture(autouse=True)
def chunks() -> Iterator[None]:
    with small_chunks():
        yield


@pytest.mark.parametrize("name", ALL_ROUTES)
async def test_whatever_goes_wrong_on_a_route_there_is_one_post(tmp_path: Path, name: str) -> None:
    outcomes = await run_route(name, ALL_ROUTES[name], tmp_path)
    assert [one for one in outcomes if one.wrong] == []
    assert section(ALL_ROUTES[name], outcomes) in PAGE.read_text(encoding="utf-8"), REWRITE


def test_the_page_has_every_route_and_no_other() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert summary() in text, REWRITE
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    titles = [[one.title for one in routes.values()] for routes in (ROUTES, PAID_ROUTES)]
    assert headings == ["Routes", *titles[0], "Can it pay twice?", *titles[1]]
    assert "wrong" not in text.split("## Routes")[1]


def test_every_platform_has_a_route_and_hundreds_of_cells_exist() -> None:
    assert uncovered() == set()
    assert {name.partition(" ")[0] for name in PAID_ROUTES} == set(RENDERERS.specs)
    assert sum(map(applicable, ROUTES)) >= 300
    # Whatever cannot exist on a route, a process can always be killed around each save of each verb that saves.
    assert all(not why_not(ROUTES[name], "open", AFTER_SAVE) for name in ROUTES)


def test_the_faults_are_those_that_were_promised() -> None:
    assert len(KILLS) == 5
    assert len(FAULTS) == len(set(FAULTS)) == 16


async def test_an_adapter_that_guesses_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that a post is not out, without having asked."""

    async def guess(self: InstagramPost, record: PostRecord) -> NotPublished:
        return NotPublished("it will be fine", then="open")

    monkeypatch.setattr(InstagramPost, "find", guess)
    outcome = await run_cell("instagram", ROUTES["instagram"], "commit", LOST_ANSWER, tmp_path)
    assert outcome.wrong


async def test_a_fault_that_never_strikes_is_no_success(tmp_path: Path) -> None:
    route = ROUTES["tiktok in one chunk"]
    outcome = await run_cell("tiktok in one chunk", route, "commit", AFTER_SAVE, tmp_path)
    assert outcome.does_not_apply
    bare = replace(route, unreachable={})
    assert (await run_cell("tiktok in one chunk", bare, "commit", AFTER_SAVE, tmp_path)).wrong == "the fault never struck"


def test_the_verbs_are_those_of_the_engine() -> None:

    assert {name for name in vars(PaidService) if not name.startswith("_")} == set(PAID_VERBS)
    verbs = {name for name in vars(PublishVerbs) if not name.startswith("_")} - {"check"}
    assert verbs == set(VERBS)
