"""`phantoms open`: watch a video."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from phantoms_dagster.cli.completion import complete_video
from phantoms_dagster.cli.console import current, out, plain, plain_errors, print_json
from phantoms_dagster.cli.player import open_file
from phantoms_dagster.cli.times import local
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.models import MediaFile, Platform
from phantoms_dagster.store.catalogue import StageRow
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.media import MediaFiles


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("open", rich_help_panel="Review")(open_video)


def _platform(name: str) -> Platform:
    try:
        return Platform(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def open_video(
    video: Annotated[str, typer.Argument(help="Key of the video, or enough of it", autocompletion=complete_video)],
    platform: Annotated[
        Platform | None,
        typer.Option(
            parser=_platform,
            metavar="|".join(Platform),
            help="Open the variant for this platform; default: the rendered video, which is what you approve",
        ),
    ] = None,
    only_print: Annotated[bool, typer.Option("--print", help="Only print the path of the file")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and open nothing")] = False,
) -> None:
    """Watch a video in the system's player or the browser. Without either, print its path."""
    with plain_errors():
        services = Services(current())
        try:
            catalogue = services.catalogue()
            key = catalogue.find(video)
            stage = "rendered_video" if platform is None else f"{platform}/variant"
            path = video_file(key, stage, catalogue.stages(key), services.media_files)
        finally:
            services.close()
        if as_json:
            print_json({"key": key, "stage": stage, "path": str(path)})
            return
        out.print(plain(str(path)), soft_wrap=True)
        if only_print:
            return
        by = open_file(path)
        said = f"opened in {by}" if by else "there is no player or browser here; open that path, or copy the file"
        out.print(f"  {said}", style="dim", soft_wrap=True)


def video_file(key: str, stage: str, stages: Mapping[str, StageRow], media_files: MediaFiles) -> Path:
    """Return the local path of the file. Raises InvalidInput, NotFound and the media store's errors."""
    row = stages.get(stage)
    if row is None:
        raise InvalidInput(f"{key} has no {stage}; `phantoms show {key}` lists its stages")
    if row.output is None or "video" not in row.output:
        raise InvalidInput(f"there is no video file yet: {stage} of {key} is {row.state}; `phantoms show {key}` says why")
    try:
        return media_files.local(MediaFile(**row.output["video"]))
    except NotFound:
        if row.cleaned:
            again = f"`phantoms retry {key} --from rendered_video` makes a new one"
            raise NotFound(f"the file of {key} was cleaned up {local(row.cleaned_at)}; {again}") from None
        raise
