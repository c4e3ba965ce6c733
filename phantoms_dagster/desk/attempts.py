"""Counts failed log-ins by name and by address, and wrong guest links and provider events by address.

The counts are in Redis, shared by all desks. While Redis is down each process counts on its own. Nobody is locked out by the
outage, and guessing stays limited.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time

import redis

PER_NAME, PER_ADDRESS = 10, 30
WINDOW_SECONDS = 900

_log = logging.getLogger(__name__)


class LoginAttempts:
    """Failed log-ins, wrong guest links and forged provider events in windows of WINDOW_SECONDS."""

    def __init__(self, redis_url: str | None) -> None:
        self._redis = redis.Redis.from_url(redis_url, socket_timeout=1, socket_connect_timeout=1) if redis_url else None
        self._own: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def wait_seconds(self, name: str, address: str) -> int:
        """Return the seconds until a log-in with this name and from this address is allowed; 0 when it is allowed now."""
        return max(self._left(key, most) for key, most in _keys(name, address))

    def failed(self, name: str, address: str) -> None:
        """Count a failed log-in."""
        for key, _ in _keys(name, address):
            self._count(key)

    def succeeded(self, name: str, address: str) -> None:
        """Reset the count of this name. The count of the address stays: it may be guessing other names."""
        key, _ = _keys(name, address)[0]
        with self._lock:
            self._own.pop(key, None)
        if self._redis is not None:
            try:
                self._redis.delete(key)
            except redis.RedisError as error:
                _away(error)

    def guess_wait_seconds(self, address: str) -> int:
        """Return the seconds until this address may open a guest link; 0 when it may now."""
        return self._left(_guess(address), PER_ADDRESS)

    def guessed(self, address: str) -> None:
        """Count a request for a guest link that does not exist."""
        self._count(_guess(address))

    def forgery_wait_seconds(self, address: str) -> int:
        """Return the seconds until this address may deliver an event of a provider; 0 when it may now."""
        return self._left(_forgery(address), PER_ADDRESS)

    def forged(self, address: str) -> None:
        """Count a delivery that is not authentic."""
        self._count(_forgery(address))

    def close(self) -> None:
        """Close the connections."""
        if self._redis is not None:
            self._redis.close()

    def _left(self, key: str, most: int) -> int:
        with self._lock:
            count, since = self._own.get(key, (0, 0.0))
        mine = int(since + WINDOW_SECONDS - time.monotonic()) if count >= most else 0
        if self._redis is None:
            return max(0, mine)
        try:
            with self._redis.pipeline() as both:
                both.get(key)
                both.ttl(key)
                found, left = both.execute()
        except redis.RedisError as error:
            _away(error)
            return max(0, mine)
        return max(0, mine, int(left) if int(found or 0) >= most else 0)

    def _count(self, key: str) -> None:
        now = time.monotonic()
        if self._redis is not None:
            try:
                with self._redis.pipeline() as both:
                    both.incr(key)
                    both.expire(key, WINDOW_SECONDS, nx=True)
                    both.execute()
            except redis.RedisError as error:
                _away(error)
            else:
                return
        with self._lock:
            self._own = {name: (n, since) for name, (n, since) in self._own.items() if since + WINDOW_SECONDS > now}
            count, since = self._own.get(key, (0, now))
            self._own[key] = (count + 1, since)


def _keys(name: str, address: str) -> tuple[tuple[str, int], tuple[str, int]]:
    return (_key("name", name.strip().casefold()), PER_NAME), (_key("address", address), PER_ADDRESS)


def _guess(address: str) -> str:
    return _key("guest", address)


def _forgery(address: str) -> str:
    return _key("event", address)


def _key(kind: str, value: str) -> str:
    return f"phantoms:desk:login:{kind}:{hashlib.sha256(value.encode()).hexdigest()[:32]}"


def _away(error: redis.RedisError) -> None:
    _log.warning("Redis does not answer (%s): this desk counts failed log-ins on its own for now", type(error).__name__)
