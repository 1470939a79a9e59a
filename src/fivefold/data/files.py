"""One file to one table: CSV, TSV, JSONL and Parquet, each also gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from fivefold.data.columns import counted, listing, nearest
from fivefold.errors import DataError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
GZIP_MAGIC = b"\x1f\x8b"
ENCODINGS = ("utf-16", "cp1252", "gb18030")
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
ZEROS = 0.1
"""A larger share of zero bytes is no UTF-8 text, whether it decodes or not."""


def read_file(path: Path) -> pl.DataFrame:
    """The table in a file; its ending says the format, `.gz` may follow.

    Cells of CSV and TSV are text exactly as written (007, N/A and None stay what they are; an empty
    cell is missing), so no class or id is reshaped by a guessed type. JSONL and Parquet keep their types.

    Raises
    ------
    DataError
        If the file is missing, empty, damaged, not UTF-8, or not of its format.
    """
    reader = READERS.get(_format_of(path))
    if reader is None:
        raise DataError(
            f"'{path}' has an ending that says no known format.",
            allowed=", ".join(READERS) + ", each with or without .gz",
            got=path.suffix or "no ending",
            next_step=_advice(path),
        )
    frame = reader(_content(path), path)
    if frame.height == 0:
        raise DataError(
            f"'{path}' has a header but no rows.",
            got=f"columns {listing(frame.columns)}",
            next_step="add rows, or name another file",
        )
    return frame


def _format_of(path: Path) -> str:
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    return endings[0] if len(endings) == 2 and endings[1] == ".gz" else "".join(endings[-1:])


def _advice(path: Path) -> str:
    if _format_of(path) == ".json":
        return "write one JSON object a line and name it .jsonl (jq -c '.[]' FILE does it for an array)"
    return "save the table in one of these formats, or rename the file if it already is"


def _content(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data
    except FileNotFoundError:
        raise _not_found(path) from None
    except IsADirectoryError:
        raise DataError(
            f"'{path}' is a folder.", allowed="a file, or a list of files", got=_tables_in(path), next_step="name them"
        ) from None
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"'{path}' can't be read: {error}.", next_step="check the file, or copy it again") from None
    if not data.strip():
        raise DataError(f"'{path}' is empty.", next_step="check how it was written")
    return data


def _not_found(path: Path) -> DataError:
    if not path.parent.is_dir():
        return DataError(f"'{path}' doesn't exist: there is no folder '{path.parent}'.", next_step="check the path")
    near = nearest(path.name, (other.name for other in path.parent.iterdir()))
    step = f"did you mean '{path.parent / near}'?" if near else "check the path"
    return DataError(f"'{path}' doesn't exist.", got=_tables_in(path.parent), next_step=step)


def _tables_in(folder: Path) -> str:
    tables = sorted(path.name for path in folder.iterdir() if _format_of(path) in READERS)
    return f"the folder holds {listing(tables)}" if tables else "the folder holds no tables"


def _decoded(data: bytes, path: Path) -> str:
    """Text of a UTF-8 file, without its byte order mark."""
    if data.count(0) > ZEROS * len(data) and not data.startswith(UTF_16_MARKS):
        raise _no_text(path, f"{data.count(0):,} of its {len(data):,} bytes are zero")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start, line = error.start, data.count(b"\n", 0, error.start) + 1
    found = next((name for name in ENCODINGS if _fits(data, name)), None)
    if found is None:
        raise _no_text(path, f"byte {start} on line {line} is 0x{data[start]:02x}; not {listing(ENCODINGS)} either")
    raise DataError(
        f"'{path}' is not UTF-8: byte {start} on line {line} is 0x{data[start]:02x}.",
        allowed="UTF-8",
        got=f"{found} decodes it, and reads there {data[max(0, start - 20) : start + 20].decode(found, 'replace')!r}",
        next_step=f"iconv -f {found} -t utf-8 FILE > NEW, if that reads right",
    )


def _no_text(path: Path, got: str) -> DataError:
    return DataError(
        f"'{path}' holds no text.",
        allowed="UTF-8",
        got=got,
        next_step="check that it is the table you mean (file FILE says what it is); UTF-16 without a mark needs iconv",
    )


def _fits(data: bytes, encoding: str) -> bool:
    if encoding == "utf-16" and not data.startswith(UTF_16_MARKS):
        return False
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _read_delimited(data: bytes, path: Path, delimiter: str) -> pl.DataFrame:
    """Read with the csv module: polars takes a lone quotation mark within a cell (5" disk) for the start of one."""
    text = _decoded(data, path)
    names = _header(text, path, delimiter)
    rows = list(_delimited_rows(text, path, delimiter))
    uneven = next(((line, row) for line, row in rows if len(row) != len(names)), None)
    if uneven:
        raise DataError(
            f"'{path}': the row that ends on line {uneven[0]} has {counted(len(uneven[1]), 'cell')}.",
            allowed=f"{len(names)}, as in the header",
            got=repr(delimiter.join(uneven[1]))[:120],
            next_step=f'put cells that hold a {DELIMITERS[delimiter]} in quotation marks ("...")',
        )
    columns = zip(*(row for _, row in rows[1:]), strict=True) if len(rows) > 1 else [()] * len(names)
    cells = ([cell or None for cell in column] for column in columns)
    return pl.DataFrame([pl.Series(name, column, pl.String) for name, column in zip(names, cells, strict=True)])


def _header(text: str, path: Path, delimiter: str) -> list[str]:
    """Names of the columns, once they show that the delimiter fits and none repeats."""
    names = next(row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row)
    others = [other for other in DELIMITERS if other != delimiter and other in names[0]]
    if len(names) == 1 and others:
        fits = max(others, key=names[0].count)
        raise DataError(
            f"'{path}' has one column, {names[0]!r}: the delimiter is not the {DELIMITERS[delimiter]}.",
            got=f"a {DELIMITERS[fits]} would give {names[0].count(fits) + 1} columns",
            next_step="save it with tabs as .tsv" if fits != "\t" else "name the file .tsv",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"'{path}' has several columns named {listing(twice)}.", next_step="rename all but one of each")
    return names


def _delimited_rows(text: str, path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The line on which each row ends, and its cells, of any length; blank lines are no rows."""
    limit = csv.field_size_limit(sys.maxsize)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for row in rows:
            start = rows.line_num + 1
            if row:
                yield rows.line_num, row
    except csv.Error:
        raise DataError(
            f"'{path}': in the row that starts on line {start}, a quotation mark opens a cell and doesn't close it.",
            allowed=f'"cell" between two {DELIMITERS[delimiter]}s or at the end of a line',
            next_step='put the whole cell in quotation marks, and write each one within it twice ("")',
        ) from None
    finally:
        csv.field_size_limit(limit)


def _objects(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line that isn't blank."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise _bad_line(path, number, line, f"no JSON ({error.msg} at character {error.pos})") from None
        if not isinstance(row, dict):
            raise _bad_line(path, number, line, f"a JSON {type(row).__name__}")
        yield number, row


def _bad_line(path: Path, number: int, line: str, got: str) -> DataError:
    return DataError(
        f"'{path}': line {number} is {got}.",
        allowed='one JSON object a line, such as {"text": "...", "label": "..."}',
        got=repr(line[:100]),
        next_step="jq -c '.[]' FILE > NEW, if the file is one array" if line.startswith("[") else "mend that line",
    )


def _read_jsonl(data: bytes, path: Path) -> pl.DataFrame:
    rows = list(_objects(_decoded(data, path), path))
    names = dict.fromkeys(name for _, row in rows for name in row)
    return pl.DataFrame([_json_column(name, rows, path) for name in names])


def _json_column(name: str, rows: list[tuple[int, dict[str, Any]]], path: Path) -> pl.Series:
    """One column; what no one type holds becomes text as JSON writes it, losing nothing."""
    cells = [row.get(name) for _, row in rows]
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds & {list, dict} and len(kinds) > 1:
        odd = next(n for (n, _), cell in zip(rows, cells, strict=True) if isinstance(cell, (list, dict)))
        raise DataError(
            f"'{path}': the column '{name}' mixes lists or objects with plain values (a list or object on line {odd}).",
            next_step="write every cell as a list, or none",
        )
    if len(kinds) > 1 and kinds != {int, float}:
        cells = [_written(cell) for cell in cells]
    try:
        return pl.Series(name, cells, strict=kinds != {int, float})
    except UnicodeEncodeError:
        return pl.Series(name, json.loads(_mended(json.dumps(cells))))
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        return pl.Series(name, [_written(cell) for cell in cells])


def _written(cell: Any) -> Any:
    """A cell, or each item of a list, as JSON writes it; text as it is."""
    if cell is None or isinstance(cell, str):
        return cell
    return [_written(item) for item in cell] if isinstance(cell, list) else json.dumps(cell)


def _mended(plain: str) -> str:
    """Half surrogate pairs, which no UTF-8 text can hold, as U+FFFD."""
    text = json.dumps(json.loads(plain), ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read_parquet(data: bytes, path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(io.BytesIO(data))
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"'{path}' is no Parquet file, or it is damaged.", got=str(error), next_step="write or copy it again"
        ) from None


READERS: dict[str, Callable[[bytes, Path], pl.DataFrame]] = {
    ".csv": lambda data, path: _read_delimited(data, path, ","),
    ".tsv": lambda data, path: _read_delimited(data, path, "\t"),
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
