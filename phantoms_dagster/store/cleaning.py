"""The files of retired videos in the table of stages: which may be deleted, and which something else needs.

`production.cleaning` decides. The media store deletes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.domain.problems import first_problem
from phantoms_dagster.domain.retirement import StageFiles
from phantoms_dagster.store.retirement import OPEN_POSTS, UNDER_WAY

_log = logging.getLogger(__name__)

# A video that was retired before that time, whose partition is gone, and that has no open stage and no open post.
_SETTLED = f"""(v.retired_at < :before AND v.place IS NULL
    AND NOT EXISTS (SELECT FROM phantoms.stages w WHERE w.video_id = v.id AND w.state IN {UNDER_WAY})
    AND NOT EXISTS (SELECT FROM phantoms.posts p WHERE p.video_id = v.id AND p.state IN {OPEN_POSTS}))"""
_FILES = """phantoms.stages s
    CROSS JOIN LATERAL (VALUES (s.output->'audio'), (s.output->'video'), (s.output->'thumbnail')) AS f(file)"""
_UNCLEAN = "s.stage = ANY(:stages) AND s.output IS NOT NULL AND (s.cleaned_at IS NULL OR s.cleaned_at < s.finished_at)"

_LOCK_SETTLED = text(
    f"""
    SELECT v.id FROM phantoms.videos v
    WHERE {_SETTLED} AND EXISTS (SELECT FROM phantoms.stages s WHERE s.video_id = v.id AND {_UNCLEAN})
        AND NOT v.id = ANY(:skipped)
    ORDER BY v.retired_at, v.id LIMIT :most FOR NO KEY UPDATE
    """
)
_MADE = text(
    f"""
    SELECT s.video_id, v.key, s.stage, COALESCE(jsonb_agg(f.file) FILTER (WHERE f.file IS NOT NULL), '[]') AS files
    FROM {_FILES} JOIN phantoms.videos v ON v.id = s.video_id
    WHERE s.video_id = ANY(:ids) AND {_UNCLEAN}
    GROUP BY s.video_id, v.key, s.stage ORDER BY s.video_id, s.stage
    """
)
# A post in flight also names its file by hash, because it needs that file whatever its stage says now.
_SHARED = text(
    f"""
    SELECT DISTINCT (f.file->>'sha256') || (f.file->>'suffix') AS name
    FROM {_FILES} JOIN phantoms.videos v ON v.id = s.video_id
    WHERE (f.file->>'sha256') || (f.file->>'suffix') = ANY(:names) AND (s.stage = ANY(:stages) AND {_SETTLED}) IS NOT TRUE
    UNION SELECT n.name FROM unnest(CAST(:names AS text[])) AS n(name) JOIN phantoms.posts p ON p.video_sha256 = left(n.name, 64)
    WHERE p.state IN {OPEN_POSTS}
    """
)
_CLEANED = text(
    """
    UPDATE phantoms.stages s SET cleaned_at = clock_timestamp()
    FROM unnest(CAST(:videos AS bigint[]), CAST(:stages AS text[])) AS g(video_id, stage)
    WHERE s.video_id = g.video_id AND s.stage = g.stage
    """
)


@dataclass(frozen=True)
class LockedFiles:
    """Implements `cleaning.Cleaning`."""

    stages: Sequence[StageFiles]
    shared: Collection[MediaFile]
    _connection: Connection

    def cleaned(self) -> None:
        """See the port."""
        values = {"videos": [made.video_id for made in self.stages], "stages": [made.stage for made in self.stages]}
        self._connection.execute(_CLEANED, values)


class RetiredFiles:
    """Finds files to delete. Implements `cleaning.CleaningStore`. A video with unreadable rows is skipped with a warning."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._skipped: set[int] = set()

    @contextmanager
    def cleaning(self, stages: Sequence[str], before: datetime, most: int) -> Iterator[LockedFiles]:
        """See the port."""
        which = {"stages": list(stages), "before": before}
        with self._engine.begin() as connection:
            made: list[StageFiles] = []
            while not made:
                values = {**which, "most": most, "skipped": list(self._skipped)}
                ids = list(connection.execute(_LOCK_SETTLED, values).scalars())
                if not ids:
                    break
                made = self._readable(connection.execute(_MADE, {**which, "ids": ids}).mappings().all())
            names = {file.sha256 + file.suffix: file for one in made for file in one.files}
            found = connection.execute(_SHARED, {**which, "names": list(names)}).scalars() if names else ()
            yield LockedFiles(made, frozenset(names[name] for name in found), connection)

    def _readable(self, rows: Sequence[RowMapping]) -> list[StageFiles]:
        """The files of these stages. Videos with an unreadable row are left out, and skipped from now on."""
        made: list[StageFiles] = []
        for row in rows:
            try:
                files = [MediaFile.model_validate(file) for file in row["files"]]
            except ValidationError as error:
                what = (row["key"], row["stage"], first_problem(error))
                _log.warning("the files of %s stay: what %s made cannot be read: %s", *what)
                self._skipped.add(row["video_id"])
            else:
                made.append(StageFiles(row["video_id"], row["key"], row["stage"], files))
        return [one for one in made if one.video_id not in self._skipped]
