"""Which process worked on what and when: PostgreSQL itself records every claim and every outcome of a stage.

A trigger on the table of stages misses no change, however short and by whichever process. The benchmarks interpret the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import RowMapping, text

from phantoms_dagster_tests.benchmarks.world import Bench

_TRIGGER = """
    CREATE SCHEMA bench;
    CREATE TABLE bench.work (
        id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT clock_timestamp(), what text NOT NULL,
        video_id bigint NOT NULL, stage text NOT NULL, generation bigint NOT NULL, run_id text NOT NULL, owner text NOT NULL);
    CREATE FUNCTION bench.note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.state = 'running' AND (OLD.state <> 'running' OR NEW.generation <> OLD.generation) THEN
            INSERT INTO bench.work (what, video_id, stage, generation, run_id, owner)
            VALUES ('claimed', NEW.video_id, NEW.stage, NEW.generation, NEW.run_id, NEW.lease_owner);
        ELSIF OLD.state = 'running' AND NEW.state <> 'running' THEN
            INSERT INTO bench.work (what, video_id, stage, generation, run_id, owner)
            VALUES ('ended', OLD.video_id, OLD.stage, OLD.generation, OLD.run_id, OLD.lease_owner);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER bench_note AFTER UPDATE ON phantoms.stages FOR EACH ROW EXECUTE FUNCTION bench.note();
"""
_WORK = """
    SELECT extract(epoch FROM at) AS at, what, video_id, stage, generation, run_id, owner FROM bench.work ORDER BY id
"""
_HELD = """
    SELECT video_id, stage, generation, run_id, lease_owner AS owner FROM phantoms.stages WHERE state = 'running' ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Held:
    """A stage of a video that a runner works on. `host` is the name of its machine."""

    video_id: int
    stage: str
    generation: int
    run_id: str
    host: str

    @property
    def row(self) -> tuple[int, str]:
        """The row, by video and stage."""
        return self.video_id, self.stage


@dataclass(frozen=True)
class Noted:
    """One claim, or one outcome of a claim. `at`: seconds since the epoch."""

    at: float
    what: str
    held: Held


@dataclass(frozen=True)
class TakenOver:
    """What happened to the runs that a host held at one moment. Seconds count from that moment.

    `resumed`: until another host claimed something of the run; `ended_there`: runs that this host itself brought to an end.
    """

    resumed: dict[str, float]
    ended_there: set[str]
    lost: set[str]


class Record:
    """The record of one bench. Create it before any work begins."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        with bench.services.engine.begin() as connection:
            connection.execute(text(_TRIGGER))

    def held_by(self, host: str) -> list[Held]:
        """Return what that host works on now."""
        found = [_held(row) for row in self._bench.rows(_HELD)]
        return [held for held in found if held.host == host]

    def all(self) -> list[Noted]:
        """Return everything so far, in order."""
        return [Noted(float(row["at"]), row["what"], _held(row)) for row in self._bench.rows(_WORK)]


def runs_by_host(record: Iterable[Noted], *, begin: float, end: float) -> dict[str, int]:
    """How many runs each host carried, by when they were first claimed there."""
    found: dict[str, set[str]] = {}
    for noted in record:
        if noted.what == "claimed" and begin <= noted.at < end:
            found.setdefault(noted.held.host, set()).add(noted.held.run_id)
    return {host: len(runs) for host, runs in sorted(found.items())}


def taken_over(record: Sequence[Noted], held: Sequence[Held], at: float) -> TakenOver:
    """Return what happened to the runs that the host held at that moment."""
    resumed: dict[str, float] = {}
    ended_there: set[str] = set()
    for mine in held:
        later = [noted for noted in record if noted.at >= at and noted.held.row == mine.row]
        claim = next((noted for noted in later if noted.what == "claimed" and noted.held.host != mine.host), None)
        end = next((noted for noted in later if noted.what == "ended"), None)
        if claim is not None and (end is None or claim.at < end.at):
            resumed[mine.run_id] = min(resumed.get(mine.run_id, float("inf")), claim.at - at)
        elif end is not None and end.held.host == mine.host:
            ended_there.add(mine.run_id)
    runs = {mine.run_id for mine in held}
    return TakenOver(resumed, ended_there, runs - set(resumed) - ended_there)


def overwritten(record: Sequence[Noted]) -> list[str]:
    """Outcomes that an old runner wrote over a newer claim, described. There must be none."""
    newest: dict[tuple[int, str], Held] = {}
    found = []
    for noted in record:
        if noted.what == "claimed":
            newest[noted.held.row] = noted.held
        elif noted.held.generation < newest.get(noted.held.row, noted.held).generation:
            found.append(f"{noted.held.host} ended {noted.held.stage} of video {noted.held.video_id}, which another had claimed")
    return found


def _held(row: RowMapping) -> Held:
    return Held(row["video_id"], row["stage"], row["generation"], row["run_id"], row["owner"].rsplit("-", 2)[0])
