"""Reads the rows of the first sheet of an Excel or LibreOffice file, with `python-calamine`.

`intake` interprets the fields and checks their values.
"""

from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Iterator, Sequence

from python_calamine import CalamineError, CalamineWorkbook

from phantoms_dagster.production.rows import BadRow, BriefRow, header_is_strange, header_of, header_problems, table_row

SUFFIXES = (".xlsx", ".xlsm", ".xls", ".ods")
# A few kilobytes can unpack to gigabytes of zeros. 25,000 briefs with ten facts each unpack to about 60 MB, and the table needs
# about as much memory again.
MAX_UNPACKED_BYTES = 128 * 1024 * 1024

_Cell = int | float | str | bool | datetime.time | datetime.date | datetime.datetime | datetime.timedelta


def sheet_rows(content: bytes, columns: Sequence[str]) -> Iterator[BriefRow | BadRow]:
    """The rows of the first sheet. Its first non-empty row names some of `columns`. All values are text."""
    try:
        table = _table(content)
    except (CalamineError, zipfile.BadZipFile, ValueError) as error:
        yield BadRow(1, f"cannot be read as a spreadsheet: {error}")
        return
    header: list[str] | None = None
    problems: list[str] = []
    for number, found in enumerate(table, start=1):
        cells = [_as_text(cell) for cell in found]
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = header_of(cells)
            problems = header_problems(header, columns)
            yield from (BadRow(number, problem, header=True) for problem in problems)
        elif header_is_strange(header, columns):
            yield BriefRow(number, {}, held=True)
        else:
            row = cells[: len(header)] + _filled(cells[len(header) :])
            yield table_row(number, row, header, columns, held=bool(problems))
    if header is None:
        yield BadRow(1, f"the first sheet is empty; its first row should name the columns: {', '.join(columns)}")


def _table(content: bytes) -> list[list[_Cell]]:
    if zipfile.is_zipfile(io.BytesIO(content)):  # .xls is not a zip file
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_UNPACKED_BYTES:
            raise ValueError(f"it unpacks to {unpacked // 1024**2:,} MiB; split it")
    with CalamineWorkbook.from_filelike(io.BytesIO(content)) as workbook:
        return workbook.get_sheet_by_index(0).to_python(skip_empty_area=False)


def _as_text(cell: _Cell) -> str:
    """The cell as a person would write it in a CSV file. Excel has no integers: 5 is read as 5.0."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.date | datetime.datetime | datetime.time):
        return cell.isoformat()
    return str(cell)


def _filled(cells: Sequence[str]) -> list[str]:
    """The cells beyond the header, or none when all of them are empty."""
    return list(cells) if any(cell.strip() for cell in cells) else []
