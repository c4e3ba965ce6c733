"""What an S3 store's refusals mean, and what a person can do about each.

obstore tells a failure in words alone; the status, the code of S3's XML answer and whether there was an answer at all are read out
of them. Codes: docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; MinIO, Ceph, R2 and Garage use the same names.
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
_REDIRECTED = "incorrectly configured region"  # a redirect without an address, as S3 answers
# Where obstore asks for the keys of a machine, a container or a web identity.
_KEYS_URL = re.compile(r"performing \w+ (?:https?://(?:169\.254\.|sts\.)|\S*/latest/(?:api/token|meta-data))")
_WHERE = "check PHANTOMS_MEDIA_ENDPOINT_URL (or AWS_ENDPOINT_URL) and that the store is running"
_KEYS = "check PHANTOMS_MEDIA_ACCESS_KEY_ID and PHANTOMS_MEDIA_SECRET_ACCESS_KEY (or AWS_*)"
_REGION = "set PHANTOMS_MEDIA_REGION to the bucket's region"
_RIGHTS = "let this key get, put and delete objects there"

_PERMANENT = {
    "AccessDenied": _RIGHTS,
    "InvalidAccessKeyId": f"the store does not know this key; {_KEYS}",
    "SignatureDoesNotMatch": f"the secret does not belong to the key; {_KEYS}",
    "ExpiredToken": "the session token has run out; renew AWS_SESSION_TOKEN",
    "InvalidToken": "the session token is none of this store's; renew or unset AWS_SESSION_TOKEN",
    "NoSuchBucket": "create the bucket, or correct PHANTOMS_MEDIA_URL",
    "InvalidBucketName": "correct PHANTOMS_MEDIA_URL",
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": _REGION,
}
_THROTTLED = ("SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "Throttling", "ThrottlingException")
_FULL = ("QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "StorageLimitExceeded")
_PASSING = {
    "RequestTimeTooSkewed": "this machine's clock is wrong; start its time synchronisation (NTP)",
    "RequestTimeout": "the connection was too slow",
    "BadDigest": "the bytes were damaged on their way",
    "XAmzContentSHA256Mismatch": "the bytes were damaged on their way",
    "IncompleteBody": "the connection was cut",
}


@dataclass(frozen=True)
class BucketError:
    """One failed request. `words` are obstore's own."""

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
        """S3's name of the error; None where there is no body, as in the answer to HEAD."""
        found = _CODE.search(self.words)
        return found[1] if found else None


def is_missing(error: FileNotFoundError) -> bool:
    """Whether it is the object that is missing, not its bucket."""
    return "<Code>NoSuchBucket</Code>" not in str(error)


def classified(error: BucketError) -> ProviderError:
    """The error to raise. Nothing of the store's own words is repeated but its code: some repeat headers."""
    status, code = error.status, error.code
    if _KEYS_URL.search(error.words):
        told = f"there are no keys for the object store; {_KEYS}, or give this machine or container a role"
        return _made(Transient, error, told, code="no keys")
    said = code or (f"HTTP {status}" if status else UNREACHABLE)
    refused = f"the object store refused {error.method} {error.address} ({said})"
    if code in _PERMANENT:
        return _made(Permanent, error, f"{refused}; {_PERMANENT[code]}")
    if _REDIRECTED in error.words or status in (301, 307):
        return _made(Permanent, error, f"{refused}; {_REGION}", code="redirect")
    if status is None:
        told = f"the object store does not answer ({error.method} {error.address}); {_WHERE}"
        return _made(Transient, error, told, code=UNREACHABLE)
    if code in _PASSING:
        return _made(Transient, error, f"{refused}: {_PASSING[code]}")
    if status == 507 or code in _FULL:
        told = f"the object store is full ({said}); make room there, or raise its quota"
        return _made(Transient, error, told, retry_after=_FULL_SECONDS)
    if status == 429 or code in _THROTTLED:
        return _made(Throttled, error, f"the object store asks us to slow down ({said})")
    if status >= 500 or status == 408:
        return _made(Transient, error, f"the object store failed at {error.method} {error.address} ({said})")
    if status in (401, 403):
        return _made(Permanent, error, f"{refused}; {_KEYS}, and {_RIGHTS}")
    if status == 404:
        return _made(Permanent, error, f"{refused}; {_PERMANENT['NoSuchBucket']}")
    return _made(Permanent, error, f"{refused}; check the PHANTOMS_MEDIA_* settings")


def is_outage(error: ProviderError) -> bool:
    """Whether the store did not do its work, as opposed to refusing, or to this machine's own faults."""
    return not isinstance(error, Throttled) and (error.code == UNREACHABLE or (error.evidence.status or 0) >= 500)


def shuts_the_store(error: ProviderError) -> bool:
    """Whether the store would say the same to any other file: keys, bucket, region, rights or space are wrong, not the file.

    A read that is refused says less: without the right to list, that is how S3 answers for a file that is not there.
    """
    if error.code in ("AccessDenied", "403") and error.evidence.request.startswith(("GET", "HEAD")):
        return False
    return isinstance(error, Permanent) or error.code in (*_FULL, "507", "no keys")


def _made(
    kind: type[Permanent] | type[Transient], error: BucketError, message: str, *, code: str | None = None, **more: float
) -> ProviderError:
    evidence = Evidence(status=error.status, request=f"{error.method} {error.address}")
    return kind(message, provider=PROVIDER, code=code or error.code or str(error.status), evidence=evidence, **more)
