"""The outbox's rules: it accepts everything that a browser plays."""

from __future__ import annotations

from pathlib import Path

from phantoms_dagster.registry.media import MediaLimits
from phantoms_dagster.registry.spec import Appearance, PlatformSpec, Setting, WordRules

PLATFORM = PlatformSpec(
    name="folder",
    title="Folder",
    remote=False,
    sign_in="its posts are files in a folder of this machine",
    adapters="phantoms_dagster.platforms.folder.adapters",
    # The words are not changed: the person who posts by hand knows where they will go.
    words=WordRules(room=5_000),
    media=MediaLimits(
        containers=frozenset({"mp4", "mov"}),
        video_codecs=frozenset({"h264", "hevc"}),
        audio_codecs=frozenset({"aac"}),
        seconds=(0.1, 3_600),
        size=4 << 30,
        moov_first=True,
    ),
    settings={
        "path": Setting(Path | None, None, "Folder of posts that a person posts by hand. Unset: outbox/ in the data directory."),
    },
    look=Appearance(colours=("#92600a", "#f0b429"), chart="#92600a", dot="#f0b429"),
)
