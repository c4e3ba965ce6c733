"""Running Lua scripts on Redis: all calls of one event-loop tick share a round trip, and scripts that Redis lost are loaded again.

This is the only place that turns the loss of Redis into the domain's NotYet.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from redis.asyncio import Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.typing import EncodableT

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.resilience.redis.refusals import NO_DRIVER_INFO, refuses

log = logging.getLogger(__name__)

ASK_AGAIN_SECONDS = 2.0
_MOST_IN_A_BATCH = 256
# Any error (restarting, failing over, full, a missing replica, busy with another script) means that Redis cannot decide now and is
# treated as unavailable. The exception is a script that Redis lost: it is loaded again here.
_LOST = (RedisError, OSError)

Argument = str | int | float
_LUA = files("phantoms_dagster.resilience.redis") / "lua"


def lua(*names: str, **constants: float) -> str:
    """The source of these files in `lua/`, concatenated, with the constants as local variables in front."""
    head = "".join(
        f"local {name} = {f'{value:.0f}' if float(value).is_integer() else value}\n" for name, value in constants.items()
    )
    return head + "".join((_LUA / f"{name}.lua").read_text(encoding="utf-8") for name in names)


@dataclass(frozen=True)
class LuaScript:
    """A Lua script. `repeatable`: running it twice with the same arguments has the effect of running it once.

    Only a repeatable script is sent again after a broken connection, because it may have run and only its reply was lost.
    """

    source: str
    repeatable: bool = True
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        """Compute the SHA-1 by which Redis identifies a script."""
        object.__setattr__(self, "sha", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True)
class _ScriptCall:
    script: LuaScript
    keys: Sequence[str]
    args: Sequence[Argument]
    answer: asyncio.Future[Any]


class RedisLost(NotYet):
    """Redis is unavailable. No call is admitted until it is back, and nothing counts as failed."""

    kind = "redis"

    def __init__(self, reason: str) -> None:
        super().__init__(f"Redis cannot decide: {reason}", retry_after=ASK_AGAIN_SECONDS)


def redis_client(url: str) -> Redis:
    """A client that fails fast: 1 s to connect, 2 s for an answer, no hidden retries (with redis-py's defaults it takes 8.7 s)."""
    return Redis.from_url(
        url,
        socket_timeout=2.0,
        socket_connect_timeout=1.0,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        decode_responses=True,
        connection_class=_Packing,
        **NO_DRIVER_INFO,
    )


class _Packing(Connection):
    """A connection that encodes commands with hiredis, as redis-py's synchronous client does.

    Encoding in Python takes five times as long. TLS and Unix-socket addresses use other connection classes and that slower
    encoding.
    """

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        """See the base class: the same bytes."""
        return _pack(*args)


_pack: Callable[..., list[bytes]] = HiredisRespSerializer().pack


class Scripts:
    """Runs scripts for one event loop over one client. The caller makes the client with `redis_client` and closes it."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._waiting: list[_ScriptCall] = []
        self._sender: asyncio.Task[None] | None = None
        self._faults: set[str] = set()
        self.losses = 0
        """How often Redis was lost so far. A change between two reads means that contact broke in between."""

    async def run(self, script: LuaScript, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """The script's answer, strings decoded. Raises RedisLost (a NotYet)."""
        return await self.send(script, keys, args)

    def send(self, script: LuaScript, keys: Sequence[str], args: Sequence[Argument]) -> asyncio.Future[Any]:
        """`run` without waiting: returns a future for the answer."""
        loop = asyncio.get_running_loop()
        call = _ScriptCall(script, keys, args, loop.create_future())
        self._waiting.append(call)
        if self._sender is None or self._sender.done():
            self._sender = loop.create_task(self._send_all(), context=Context())
        return call.answer

    async def aclose(self) -> None:
        """Send the calls that still wait. The client stays open."""
        if self._sender is not None:
            await self._sender

    async def _send_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST_IN_A_BATCH], self._waiting[_MOST_IN_A_BATCH:]
            try:
                await self._send(batch)
            except asyncio.CancelledError:
                for call in (*batch, *self._waiting):
                    call.answer.cancel()
                self._waiting.clear()
                raise
            except Exception as error:  # noqa: BLE001 - every caller waits for an answer, so each gets the error
                _answer_all(batch, error)

    async def _send(self, batch: list[_ScriptCall]) -> None:
        try:
            try:
                answers = await self._pipeline(batch)
            except RedisConnectionError:
                # After a restart of Redis every pooled connection is stale: reconnect once.
                await self._client.connection_pool.disconnect(inuse_connections=False)
                lost = [call for call in batch if not call.script.repeatable]
                self._lose(lost, "it went away before it answered")
                batch = [call for call in batch if call.script.repeatable]
                answers = await self._pipeline(batch)
        except _LOST as error:
            self._lose(batch, f"{type(error).__name__}: {error}")
            return
        for call, answer in zip(batch, answers, strict=True):
            if isinstance(answer, _LOST):
                self._lose([call], f"{type(answer).__name__}: {answer}")
            else:
                _answer_all([call], answer)

    async def _pipeline(self, batch: list[_ScriptCall]) -> list[Any]:
        answers = await self._evaluate(batch)
        forgotten = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if forgotten:
            for source in {batch[i].script.source for i in forgotten}:
                await self._client.script_load(source)
            again = await self._evaluate([batch[i] for i in forgotten])
            for i, answer in zip(forgotten, again, strict=True):
                answers[i] = answer
        return answers

    async def _evaluate(self, batch: list[_ScriptCall]) -> list[Any]:
        if not batch:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for call in batch:
                pipe.evalsha(call.script.sha, len(call.keys), *call.keys, *call.args)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers

    def _lose(self, batch: Sequence[_ScriptCall], reason: str) -> None:
        if batch:
            self.losses += 1
        if (
            reason.startswith(ResponseError.__name__) and not refuses(reason) and reason not in self._faults
        ):  # this may be our own bug, and waiting would hide it: log it once
            self._faults.add(reason)
            log.error("Redis did not run a script: %s", reason)
        for call in batch:
            _answer_all([call], RedisLost(reason))  # a separate error each, because each is raised in another place


def _answer_all(batch: Sequence[_ScriptCall], answer: Any) -> None:
    """Give each caller its answer or error. Cancelled callers get none."""
    for call in batch:
        if call.answer.done():
            continue
        if isinstance(answer, Exception):
            call.answer.set_exception(answer)
        else:
            call.answer.set_result(answer)
