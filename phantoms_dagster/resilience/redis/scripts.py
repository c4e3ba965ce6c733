"""Running Lua scripts on Redis: all calls of one event-loop tick in one round trip, scripts reloaded when Redis forgot them.

Loss of Redis becomes a NotYet of the domain here and nowhere else. What the scripts decide belongs to their own modules.
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
from phantoms_dagster.resilience.redis.refusals import UNNAMED, refuses

log = logging.getLogger(__name__)

ASK_AGAIN_SECONDS = 2.0
_MOST_IN_A_BATCH = 256
# Whatever it says instead of an answer (restarting, failing over, full, a replica missing, busy with another script), Redis cannot
# decide now: as good as away. A script that it forgot is the one error that is not the caller's business.
_LOST = (RedisError, OSError)

Argument = str | int | float
_LUA = files("phantoms_dagster.resilience.redis") / "lua"


def lua(*names: str, **constants: float) -> str:
    """The Lua of those files of `lua/`, one after the other, with the constants as local variables before them."""
    head = "".join(
        f"local {name} = {f'{value:.0f}' if float(value).is_integer() else value}\n" for name, value in constants.items()
    )
    return head + "".join((_LUA / f"{name}.lua").read_text(encoding="utf-8") for name in names)


@dataclass(frozen=True)
class LuaScript:
    """A Lua script. `repeatable`: running it twice with the same arguments does no more than running it once.

    Only a repeatable script is sent again when its connection broke, because its reply may be what was lost.
    """

    source: str
    repeatable: bool = True
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        """Redis names scripts by their SHA-1."""
        object.__setattr__(self, "sha", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True)
class _ScriptCall:
    script: LuaScript
    keys: Sequence[str]
    args: Sequence[Argument]
    answer: asyncio.Future[Any]


class RedisLost(NotYet):
    """Redis cannot be asked: nobody is let through until it can be, and nothing has failed."""

    kind = "redis"

    def __init__(self, reason: str) -> None:
        super().__init__(f"Redis cannot decide: {reason}", retry_after=ASK_AGAIN_SECONDS)


def redis_client(url: str) -> Redis:
    """A client that fails fast: a second's silence is a loss, and nothing is retried behind our back (8.7 s with the defaults)."""
    return Redis.from_url(
        url,
        socket_timeout=2.0,
        socket_connect_timeout=1.0,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        decode_responses=True,
        connection_class=_Packing,
        **UNNAMED,
    )


class _Packing(Connection):
    """A connection that writes its commands by hiredis, as redis-py's other clients do; its own way in Python takes five times as
    long. Addresses with TLS or of a socket have classes of their own, and the slower way.
    """

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        """See the base class: the same bytes."""
        return _pack(*args)


_pack: Callable[..., list[bytes]] = HiredisRespSerializer().pack


class Scripts:
    """Runs scripts for one event loop over one client (made by `redis_client`, closed by whoever made it)."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._waiting: list[_ScriptCall] = []
        self._sender: asyncio.Task[None] | None = None
        self._faults: set[str] = set()
        self.losses = 0
        """How often Redis was lost so far: who compares it knows that contact broke in between."""

    async def run(self, script: LuaScript, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """The script's answer, strings decoded. Raises RedisLost (a NotYet)."""
        return await self.send(script, keys, args)

    def send(self, script: LuaScript, keys: Sequence[str], args: Sequence[Argument]) -> asyncio.Future[Any]:
        """`run` for whoever does not wait for the answer."""
        loop = asyncio.get_running_loop()
        call = _ScriptCall(script, keys, args, loop.create_future())
        self._waiting.append(call)
        if self._sender is None or self._sender.done():
            self._sender = loop.create_task(self._send_all(), context=Context())
        return call.answer

    async def aclose(self) -> None:
        """Send what is still waiting. The client stays open."""
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
            except Exception as error:  # noqa: BLE001 - whatever it is belongs to the callers, each of whom waits for an answer
                _answer_all(batch, error)

    async def _send(self, batch: list[_ScriptCall]) -> None:
        try:
            try:
                answers = await self._pipeline(batch)
            except RedisConnectionError:
                # After a restart every pooled connection is stale: start afresh, once.
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
        ):  # perhaps it is ours: waiting hides that, this line does not
            self._faults.add(reason)
            log.error("Redis did not run a script: %s", reason)
        for call in batch:
            _answer_all([call], RedisLost(reason))  # one each: they are raised in different places


def _answer_all(batch: Sequence[_ScriptCall], answer: Any) -> None:
    """Give each waiting caller its answer; those that were cancelled meanwhile want none."""
    for call in batch:
        if call.answer.done():
            continue
        if isinstance(answer, Exception):
            call.answer.set_exception(answer)
        else:
            call.answer.set_result(answer)
