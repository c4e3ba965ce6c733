"""One bucket of an S3-compatible object store, through obstore. `errors` classifies its errors; `store` names the objects.

obstore's own few retries stay on, because every request here may safely be sent twice.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.media.object_store.errors import PROVIDER, BucketError, classify, is_missing

if TYPE_CHECKING:
    from obstore.store import S3Credential

__all__ = ["PROVIDER", "Bucket"]

# The smallest parts that S3 allows, one at a time: several at once take memory, and all time out on a slow line.
PART_BYTES = 5 << 20
PARTS_AT_ONCE = 1
_BLOCK = 1 << 20
_RETRIES = 2
_RETRY_SECONDS = 30  # after a slower failure, only the runner retries: it blocks no other video meanwhile
_CONNECT_SECONDS = 5
_SILENCE_SECONDS = 60  # the server's longest silence; it includes the time to send a part
_user: int | None = None


class Bucket:
    """A bucket. `url` is `s3://bucket/prefix`. Arguments that are None come from `AWS_*` or the container's or machine's role.

    Every method raises the `ProviderError`s of `errors`. The constructor raises InvalidInput when the environment is not usable.
    """

    def __init__(
        self,
        url: str,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        call_seconds: float = 600.0,
    ) -> None:
        _not_forked()
        self._url = url.rstrip("/")
        bucket, _, prefix = self._url.removeprefix("s3://").partition("/")
        given = {"endpoint": endpoint_url, "aws_endpoint_url_s3": endpoint_url, "region": region}
        keys = _keys(access_key_id, secret_access_key) if access_key_id and secret_access_key else None
        try:
            self._store = S3Store(
                bucket,
                prefix=prefix or None,
                config={name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
                credential_provider=keys,
                disable_bulk_delete=True,  # not every store has it, and only single objects are deleted here
                client_options={
                    "allow_http": True,  # a user who sets an http:// endpoint means it
                    "root_certificate": _authorities(),
                    "timeout": timedelta(seconds=call_seconds),
                    "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                    "read_timeout": timedelta(seconds=_SILENCE_SECONDS),
                },
                retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)},
            )
        except (BaseError, ValueError) as error:
            raise InvalidInput(f"the object store cannot be set up: {str(error).splitlines()[0]}; check AWS_* variables") from error

    def address(self, name: str) -> str:
        """`s3://bucket/prefix/name`."""
        return f"{self._url}/{name}"

    async def size(self, name: str) -> int | None:
        """The object's size in bytes; None when the object does not exist, or (S3 does not tell) its bucket."""
        found = await self.look(name)
        return found[0] if found else None

    async def look(self, name: str) -> tuple[int, float] | None:
        """The object's size in bytes and its age in seconds on this machine's clock; None when it does not exist."""
        with self._errors("HEAD", name):
            try:
                found = await obstore.head_async(self._store, name)
            except FileNotFoundError:
                return None
        return found["size"], (datetime.now(UTC) - found["last_modified"]).total_seconds()

    async def mark(self, name: str) -> None:
        """Write a one-byte object of that name."""
        with self._errors("PUT", name):
            await obstore.put_async(self._store, name, b"-")

    async def put(self, name: str, path: Path) -> None:
        """Upload the file, completely or not at all. Its bytes are signed, so the store verifies them."""
        with self._errors("PUT", name):
            await obstore.put_async(self._store, name, path, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    async def get(self, name: str, target: Path) -> int | None:
        """Download the object to `target`. Returns its size, None if it does not exist.

        Broken connections are resumed a few times.
        """
        with self._errors("GET", name):
            try:
                answer = await obstore.get_async(self._store, name)
            except FileNotFoundError as error:
                if is_missing(error):
                    return None
                raise
            with target.open("xb") as file:
                async for block in answer.stream(min_chunk_size=_BLOCK):
                    await asyncio.to_thread(file.write, block)
                return file.tell()

    async def sign(self, name: str, lasts: timedelta) -> str:
        """An address from which anybody can fetch the object for that long. Nothing is sent to the store."""
        with self._errors("GET", name):
            return await obstore.sign_async(self._store, "GET", name, lasts)

    async def delete(self, name: str) -> None:
        """Delete the object, if it exists."""
        with self._errors("DELETE", name):
            try:
                await obstore.delete_async(self._store, name)
            except FileNotFoundError as error:
                if not is_missing(error):
                    raise

    @contextmanager
    def _errors(self, method: str, name: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            raise classify(BucketError(str(error), method=method, address=self.address(name))) from None


@functools.cache
def _authorities() -> str:
    """certifi's certificate authorities, as for every other service, because slim containers have none.

    SSL_CERT_FILE adds to them.
    """
    return Path(certifi.where()).read_text(encoding="utf-8")


def _keys(access_key_id: str, secret_access_key: str) -> Callable[[], S3Credential]:
    """A provider of the given keys that ignores the environment, whose session token would belong to another key."""
    return lambda: {"access_key_id": access_key_id, "secret_access_key": secret_access_key, "token": None, "expires_at": None}


def _not_forked() -> None:
    """Raise RuntimeError in a forked child: obstore's threads do not survive a fork, so the child would wait for them forever."""
    global _user  # noqa: PLW0603
    _user = _user or os.getpid()
    if _user != os.getpid():
        raise RuntimeError("the object store was opened before this process was forked; open it after the fork only")
