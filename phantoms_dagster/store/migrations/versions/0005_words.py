"""Words in one form: the fingerprints of briefs that were stored with decomposed letters, and the hashtags of channels.

Of two videos that turn out to be the same brief the older one gets the common fingerprint; the other keeps its own.
"""

import hashlib
import json
import unicodedata
from typing import Any

from alembic import op
from sqlalchemy import text

from phantoms_dagster.domain.hashtags import repaired, unique

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    decomposed = text("SELECT id, brief::text AS brief FROM phantoms.videos WHERE brief::text IS NOT NFC NORMALIZED ORDER BY id")
    change = text(
        """
        UPDATE phantoms.videos SET fingerprint = :fingerprint, title = normalize(title, NFC)
        WHERE id = :id AND NOT EXISTS (SELECT 1 FROM phantoms.videos WHERE fingerprint = :fingerprint)
        """
    )
    for row in connection.execute(decomposed).all():
        brief = json.loads(unicodedata.normalize("NFC", row.brief))
        connection.execute(change, {"id": row.id, "fingerprint": _fingerprint(brief)})
    for row in connection.execute(text("SELECT name, config FROM phantoms.channels")).all():
        tags = row.config.get("hashtags") or []
        kept = [str(tag) for tag in unique(tag for written in tags for tag in repaired(written))]
        if kept != tags:
            config = json.dumps({**row.config, "hashtags": kept}, ensure_ascii=False)
            statement = text("UPDATE phantoms.channels SET config = CAST(:config AS jsonb) WHERE name = :name")
            connection.execute(statement, {"config": config, "name": row.name})


def downgrade() -> None:
    """Nothing: both forms were valid before."""


def _fingerprint(brief: dict[str, Any]) -> str:
    same = [brief["title"].casefold().strip(), brief.get("angle", "").strip(), sorted(brief.get("facts", [])), brief["channel"]]
    return hashlib.sha256(json.dumps(same, ensure_ascii=False).encode()).hexdigest()
