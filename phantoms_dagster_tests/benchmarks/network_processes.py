"""Processes of a world on a network (see `network_world`): `sandbox ADDRESS PORT SEED`, `worker QUEUES` and `caught KEY...`.

The first two are the product's own, but for what a command has no option for: an address that other hosts reach, and the
definitions. The third is a runner that the end of its host finds inside a transaction.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn
from unittest import mock

from aiohttp import web
from sqlalchemy import text

from phantoms_dagster.cli import main as cli
from phantoms_dagster.store.engine import async_engine
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.sandbox import sandbox_application
from phantoms_dagster_tests.benchmarks.stack import STAND_INS

# What `caught` says when it has its locks.
CAUGHT = "inside a transaction"


def sandbox(address: str, port: str, seed: str) -> None:
    """`phantoms sandbox --fast-renders` on that address. The URLs that it hands out name it, too."""
    with tempfile.TemporaryDirectory(prefix="phantoms-sandbox-") as folder:
        base_url = f"http://{address}:{port}"
        application = sandbox_application(seed=int(seed), base_url=base_url, work_dir=Path(folder), real_renders=False)
        web.run_app(application, host=address, port=int(port), print=None, access_log=None)


def worker(queues: str) -> None:
    """`phantoms worker --queues QUEUES`, whose workers get the definitions with the stand-ins."""
    become: Callable[[str, list[str]], NoReturn] = os.execv

    def become_with_stand_ins(program: str, arguments: list[str]) -> NoReturn:
        become(program, [*arguments, "--module", STAND_INS])

    with mock.patch("os.execv", become_with_stand_ins), mock.patch.object(sys, "argv", ["phantoms", "worker", "--queues", queues]):
        cli.main()


def caught(*keys: str) -> None:
    """Lock all stages of these videos, as a claim does, and come no further than that."""
    asyncio.run(_lock_and_wait(keys))


async def _lock_and_wait(keys: Sequence[str]) -> None:
    statement = "SELECT FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id WHERE v.key = ANY(:keys) FOR UPDATE OF s"
    async with async_engine(Services.from_environment().database_url).begin() as connection:
        await connection.execute(text(statement), {"keys": list(keys)})
        print(CAUGHT, flush=True)
        await asyncio.Event().wait()


ROLES: Mapping[str, Callable[..., None]] = {"sandbox": sandbox, "worker": worker, "caught": caught}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*sys.argv[2:])
