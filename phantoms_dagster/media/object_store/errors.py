"""Classifies an S3 store's errors and says what a person can do about each.

obstore reports a failure only as text. The status, the code in S3's XML answer, and whether there was an answer at all are parsed
from it. Codes: docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; MinIO, Ceph, R2 and Garage use the same names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from phantoms_dagster.domain.errors import Evidence, Permanent, ProviderError, Throttled, Transient

PROVIDER = "media"
# The code of a failure without an answer.
UNREACHABLE = "unreachable"
_FULL_SECONDS = 300.0

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>\s*([A-Za-z0-9.]{1,60})\s*</Code>")
_REDIRECTED = "incorrectly configured region"  # obstore's words for a redirect without an address, as S3 sends it
# A failed request of obstore for the keys of a machine, a container or a web identity.
_KEYS_URL = re.compile(r"performing \w+ (?:https?://(?:169\.254\.|sts\.)|\S*/latest/(?:api/token|meta-data))")
_WHERE = "check PHANTOMS_MEDIA_ENDPOINT_URL (or AWS_ENDPOINT_URL) and that the store is running"
_KEYS = "check PHANTOMS_MEDIA_ACCESS_KEY_ID and PHANTOMS_MEDIA_SECRET_ACCESS_KEY (or AWS_*)"
_REGION = "set PHANTOMS_MEDIA_REGION to the bucket's region"
_RIGHTS = "let this key get, put and delete objects there"

_PERMANENT = {
    "AccessDenied": _RIGHTS,
    "InvalidAccessKeyId": f"the store does not know this key; {_KEYS}",
    "SignatureDoesNotMatch": f"the secret does not belong to the key; {_KEYS}",
    "ExpiredToken": "the session token has expired; renew AWS_SESSION_TOKEN",
    "InvalidToken": "the session token is not from this store; renew or unset AWS_SESSION_TOKEN",
    "NoSuchBucket": "create the bucket, or correct PHANTOMS_MEDIA_URL",
    "InvalidBucketName": "correct PHANTOMS_MEDIA_URL",
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": _REGION,
}
_THROTTLED = ("SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "Throttling", "ThrottlingException")
_FULL = ("QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "StorageLimitExceeded")
_TRANSIENT = {
    "RequestTimeTooSkewed": "this machine's clock is wrong; start its time synchronisation (NTP)",
    "RequestTimeout": "the connection was too slow",
    "BadDigest": "the bytes were damaged in transit",
    "XAmzContentSHA256Mismatch": "the bytes were damaged in transit",
    "IncompleteBody": "the connection was cut",
}


@dataclass(frozen=True)
class BucketError:
    """One failed request. `words` is obstore's text."""

    words: str
    method: str
    address: str

    @property
    def status(self) -> int | None:
        """The HTTP status; None when there was no answer."""
        found = _STATUS.search(self.words)
        return int(found[1]) if found else None

    @property
    def code(self) -> str | None:
        """S3's error code; None for an answer without a body, such as one to HEAD."""
        found = _CODE.search(self.words)
        return found[1] if found else None


def is_missing(error: FileNotFoundError) -> bool:
    """Whether the object is missing, rather than its bucket."""
    return "<Code>NoSuchBucket</Code>" not in str(error)


def classify(error: BucketError) -> ProviderError:
    """The error to raise. It repeats only the code of the store's answer, because some stores quote request headers."""
    status, code = error.status, error.code
    if _KEYS_URL.search(error.words):
        told = f"there are no keys for the object store; {_KEYS}, or give this machine or container a role"
        return _provider_error(Transient, error, told, code="no keys")
    said = code or (f"HTTP {status}" if status else UNREACHABLE)
    refused = f"the object store refused {error.method} {error.address} ({said})"
    if code in _PERMANENT:
        return _provider_error(Permanent, error, f"{refused}; {_PERMANENT[code]}")
    if _REDIRECTED in error.words or status in (301, 307):
        return _provider_error(Permanent, error, f"{refused}; {_REGION}", code="redirect")
    if status is None:
        told = f"the object store does not answer ({error.method} {error.address}); {_WHERE}"
        return _provider_error(Transient, error, told, code=UNREACHABLE)
    if code in _TRANSIENT:
        return _provider_error(Transient, error, f"{refused}: {_TRANSIENT[code]}")
    if status == 507 or code in _FULL:
        told = f"the object store is full ({said}); free some space there, or raise its quota"
        return _provider_error(Transient, error, told, retry_after=_FULL_SECONDS)
    if status == 429 or code in _THROTTLED:
        return _provider_error(Throttled, error, f"the object store asks us to slow down ({said})")
    if status >= 500 or status == 408:
        return _provider_error(Transient, error, f"the object store failed at {error.method} {error.address} ({said})")
    if status in (401, 403):
        return _provider_error(Permanent, error, f"{refused}; {_KEYS}, and {_RIGHTS}")
    if status == 404:
        return _provider_error(Permanent, error, f"{refused}; {_PERMANENT['NoSuchBucket']}")
    return _provider_error(Permanent, error, f"{refused}; check the PHANTOMS_MEDIA_* settings")


def is_outage(error: ProviderError) -> bool:
    """Whether the store failed to work, as opposed to refusing the request or a fault of this machine."""
    return not isinstance(error, Throttled) and (error.code == UNREACHABLE or (error.evidence.status or 0) >= 500)


def is_store_wide(error: ProviderError) -> bool:
    """Whether the error would be the same for any file: keys, bucket, region, permissions or space are the cause, not the file.

    A refused read does not count: without permission to list, S3 answers so for a file that does not exist.
    """
    if error.code in ("AccessDenied", "403") and error.evidence.request.startswith(("GET", "HEAD")):
        return False
    return isinstance(error, Permanent) or error.code in (*_FULL, "507", "no keys")


def _provider_error(
    kind: type[Permanent] | type[Transient], error: BucketError, message: str, *, code: str | None = None, **more: float
) -> ProviderError:
    evidence = Evidence(status=error.status, request=f"{error.method} {error.address}")
    return kind(message, provider=PROVIDER, code=code or error.code or str(error.status), evidence=evidence, **more)
