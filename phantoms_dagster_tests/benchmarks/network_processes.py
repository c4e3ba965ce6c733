"""Processes of a world on a network (see `network_world`): `sandbox ADDRESS PORT SEED` and `worker QUEUES`.

Both are the product's own, but for what a command has no option for: an address that other hosts reach, and the definitions.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn
from unittest import mock

from aiohttp import web

from phantoms_dagster.cli import main as cli
from phantoms_dagster.wiring.sandbox import sandbox_application
from phantoms_dagster_tests.benchmarks.stack import STAND_INS


def sandbox(address: str, port: str, seed: str) -> None:
    """`phantoms sandbox --fast-renders` on that address. The URLs that it hands out name it, too."""
    with tempfile.TemporaryDirectory(prefix="phantoms-sandbox-") as folder:
        base_url = f"http://{address}:{port}"
        application = sandbox_application(seed=int(seed), base_url=base_url, work_dir=Path(folder), real_renders=False)
        web.run_app(application, host=address, port=int(port), print=None, access_log=None)


def worker(queues: str) -> None:
    """`phantoms worker --queues QUEUES`, whose workers get the definitions with the stand-ins."""
    become = os.execv

    def become_with_stand_ins(program: str, arguments: list[str]) -> NoReturn:
        become(program, [*arguments, "--module", STAND_INS])

    with mock.patch("os.execv", become_with_stand_ins), mock.patch.object(sys, "argv", ["phantoms", "worker", "--queues", queues]):
        cli.main()


ROLES = {"sandbox": sandbox, "worker": worker}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*sys.argv[2:])
