"""The API answers every request as its document says, and never fails.

`PHANTOMS_FUZZ_SECONDS=120` sends for longer.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn

from phantoms_dagster.desk.api.document import made
from phantoms_dagster.domain.webhooks import RetrySchedule
from phantoms_dagster.store.outbox import Outbox
from phantoms_dagster.store.webhooks import Webhooks
from phantoms_dagster_tests.integration.desk_world import TESTER, DeskWorld, open_desk
from phantoms_dagster_tests.integration.test_dead_letters import fail

SECONDS = int(os.environ.get("PHANTOMS_FUZZ_SECONDS", "20"))
CHECKS = ",".join(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "unsupported_method",
        "ignored_auth",
    ]
)


async def test_what_is_allowed_and_what_is_not_are_answered_as_the_document_says(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with open_desk(database_url, redis_url, tmp_path / "home", desk_port=port, desk_undo_seconds=2.0) as world:
            world.add_user("somebody")
            world.desk.users.add_token("fuzz", "operator", "phantoms_fuzz", actor=TESTER)
            described = tmp_path / "openapi.json"
            described.write_text(json.dumps(await with_examples(world)))
            server = uvicorn.Server(uvicorn.Config(world.app, log_config=None, ws="none", timeout_graceful_shutdown=2))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()
            try:
                said, code = await schemathesis(described, f"http://127.0.0.1:{port}", tmp_path)
            finally:
                server.should_exit = True
                await asyncio.to_thread(thread.join, 30)
            print(said)
            assert code == 0, said
            assert "passed" in said


async def with_examples(world: DeskWorld) -> dict[str, Any]:
    """The document, in which parameters have examples that are there: a search for a key by chance would find none."""
    keys = await world.waiting(3)
    failed = world.world.add(3)
    await fail(world.world, failed, "script")
    await with_numbers(world)
    causes = [row["cause"] for row in world.world.rows("SELECT DISTINCT cause FROM phantoms.dead_letters")]
    made_up: dict[str, list[Any]] = {"key": [*keys, *failed], "number": [1, 2, 3], "cause": causes}
    document: dict[str, Any] = json.loads(json.dumps(made(world.app)))
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                values = made_up.get(parameter["name"], [])
                if values:
                    parameter["examples"] = {str(value): {"value": value} for value in values}
    return document


async def with_numbers(world: DeskWorld) -> None:
    """What routes name by a number: one or more each of endpoints with their deliveries, guest links, decisions, bulk actions."""
    keys, desk = await world.waiting(3), world.desk
    endpoints = Webhooks(desk.services.engine, "loopback")
    for name in ("a", "b", "c"):
        endpoints.add(f"https://hooks.example.org/{name}", [], TESTER)
    posted = {"video": {"key": keys[0], "title": "The sea", "channel": "facts"}, "post": {"platform": "tiktok"}}
    Outbox(desk.services.engine, RetrySchedule()).tell("video.posted", "post/1", posted, datetime.now(UTC))
    for key in keys:
        desk.guests.add(key, "Dr. Weber", TESTER, content_sha256=world.content(key), hours=1)
        desk.bulk.submit("priority", [(key, None)], TESTER, arguments={"priority": "4"})
    for key in keys[1:]:
        desk.pending.submit(key, "hold", TESTER, content_sha256=world.content(key))


async def schemathesis(document: Path, url: str, folder: Path) -> tuple[str, int]:
    """Run it; what it said, and its exit code."""
    program = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        str(document),
        *("--url", url),
        *("-H", "Authorization: Bearer phantoms_fuzz"),
        *("--checks", CHECKS),
        *("--max-time", str(SECONDS)),
        *("--request-timeout", "30"),
        *("--suppress-health-check", "all"),
        "--no-color",
        "--continue-on-failure",
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await program.communicate()
    return said.decode(errors="replace"), program.returncode or 0
