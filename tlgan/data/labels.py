"""Labels from a CSV file of `file,label`: one row an image, a header row or none."""

from __future__ import annotations

import csv
from pathlib import Path

from tlgan.errors import Problem, SpecError, did_you_mean

MOST_SHOWN = 20
MOST_COMPARED = 2000  # file names searched for the nearest one


def read_labels(where: str, root: Path, files: list[str]) -> dict[str, str]:
    """Label by file. `where` is relative to the image folder or to the current directory; files without a row get none.

    Raises `SpecError` with the line of every row that has no label, names a missing file or contradicts another row.
    """
    path = next((p for p in (root / where, Path(where).expanduser()) if p.is_file()), None)
    if path is None:
        places = f"expected a CSV of file,label in {root} or in the current directory"
        raise SpecError(Problem(f"there is no file {where}", path="data.labels", hint=places))
    known = set(files)
    label_of: dict[str, str] = {}
    problems: list[Problem] = []
    try:
        rows = _rows(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(Problem(f"not a CSV file in UTF-8: {error}", path="data.labels", file=str(path))) from None
    for line, row in rows:
        message, hint = _mistake(row, known, label_of)
        if message is not None:
            problems.append(Problem(message, path="data.labels", file=str(path), line=line, hint=hint))
        else:
            label_of[_normal(row[0])] = row[1].strip()
    if len(problems) > MOST_SHOWN:
        more = Problem(f"and {len(problems) - MOST_SHOWN} more of this kind", path="data.labels", file=str(path))
        problems = [*problems[:MOST_SHOWN], more]
    if problems:
        raise SpecError(problems)
    if not label_of:
        raise SpecError(Problem("the file has no rows of file,label", path="data.labels", file=str(path)))
    return label_of


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    header = rows and len(rows[0][1]) > 1 and rows[0][1][1].strip().lower() == "label"
    return rows[1:] if header else rows


def _mistake(row: list[str], known: set[str], label_of: dict[str, str]) -> tuple[str | None, str | None]:
    if len(row) != 2 or not row[1].strip():
        return f"expected two columns, file and label; received {','.join(row)!r}", None
    file = _normal(row[0])
    if file not in known:
        near = did_you_mean(file, known) if len(known) <= MOST_COMPARED else None
        return f"there is no image {file}", near or "paths are relative to the image folder, with /"
    if label_of.get(file, row[1].strip()) != row[1].strip():
        return f"{file} already has the label {label_of[file]}", None
    return None, None


def _normal(file: str) -> str:
    return file.strip().replace("\\", "/").removeprefix("./")
