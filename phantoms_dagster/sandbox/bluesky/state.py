"""The stand-in's state: sessions, uploaded videos and records, with names and keys of the AT Protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.pace import wait_seconds

# The account's own server is not the log-in host, as with the real service.
SERVER = "morel.us-east.host.sandbox.test"
COLLECTION = "app.bsky.feed.post"
TID = re.compile(r"[234567abcdefghij][234567abcdefghijklmnopqrstuvwxyz]{12}")
DAY = 86_400.0
UNUSED_SECONDS = 6 * 3_600.0  # a video that no record refers to is deleted after this time


TID_LETTERS = "234567abcdefghijklmnopqrstuvwxyz"


def jwt(**claims: object) -> str:
    """A token in the form of a JWT. Clients read its claims; nobody checks its signature."""
    parts = ({"typ": "at+jwt", "alg": "ES256K"}, claims)
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), "c2FuZGJveA"])


def tid(seconds: float, number: int) -> str:
    """The key of a record whose writer names none: its time in microseconds, and a number that tells those of one time apart."""
    value = int(seconds * 1_000_000) << 10 | number % 1024
    return "".join(TID_LETTERS[value >> 5 * place & 31] for place in reversed(range(13)))


@dataclass
class SandboxSession:
    """One log-in. Times are seconds since the epoch."""

    access: str
    refresh: str
    account: str
    made_at: float
    replaced: bool = False


@dataclass
class BlueskyVideo:
    """An uploaded video and its job. `failure`: the code with which its job fails; None if it succeeds."""

    job: str
    account: str
    sha256: str
    size: int
    sent_at: float
    used: bool = False
    failure: str | None = None


@dataclass
class Record:
    """A record of an account."""

    account: str
    key: str
    value: dict[str, object]
    cid: str
    sha256: str
    made_at: float


@dataclass
class BlueskyState:
    """The whole state, in order of creation."""

    sessions: dict[str, SandboxSession] = field(default_factory=dict)
    videos: dict[str, BlueskyVideo] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def of(cls, sandbox: Sandbox) -> BlueskyState:
        """The state of a sandbox, restored from its store."""
        found = sandbox.state.get("bluesky")
        if not isinstance(found, BlueskyState):
            found = sandbox.state["bluesky"] = cls()
            found.sessions |= {session.access: session for session in sandbox.kept("bluesky_session", SandboxSession)}
            found.videos |= {video.job: video for video in sandbox.kept("bluesky_video", BlueskyVideo)}
            found.records |= {address(record.account, record.key): record for record in sandbox.kept("bluesky_record", Record)}
        return found


def did(account: str) -> str:
    """The DID of an account."""
    return f"did:plc:{base64.b32encode(hashlib.sha256(account.encode()).digest()).decode().lower()[:24]}"


def address(account: str, key: str) -> str:
    """The `at://` address of a post."""
    return f"at://{did(account)}/{COLLECTION}/{key}"


def cid(content: str) -> str:
    """The content identifier (CID) of some content."""
    return "bafyrei" + base64.b32encode(hashlib.sha256(content.encode()).digest()).decode().lower().rstrip("=")


def blob(video: BlueskyVideo) -> dict[str, object]:
    """The blob by which records refer to a video."""
    return {"$type": "blob", "ref": {"$link": cid(video.sha256)}, "mimeType": "video/mp4", "size": video.size}


def job_status(sandbox: Sandbox, video: BlueskyVideo) -> dict[str, object]:
    """The status of a video's job. For a moment it is complete but has no blob yet, which the lexicon permits."""
    age = sandbox.now() - video.sent_at
    whole = wait_seconds(sandbox, "bluesky.processing_seconds", video.sha256)
    told: dict[str, object] = {"jobId": video.job, "did": did(video.account)}
    if age < whole:
        return {
            **told,
            "state": "JOB_STATE_ENCODING" if age < whole / 2 else "JOB_STATE_SCANNING",
            "progress": int(99 * age / whole),
        }
    if video.failure is not None:
        return {**told, "state": "JOB_STATE_FAILED", "failureCode": video.failure, "error": "the video was not processed"}
    if age < whole * 1.2:
        return {**told, "state": "JOB_STATE_COMPLETED", "progress": 100}
    return {**told, "state": "JOB_STATE_COMPLETED", "progress": 100, "blob": blob(video), "message": "Video processed"}
