"""Lines of a text file, decoded, or a plain word about what it is instead of text in UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Generator
from pathlib import Path

from distill_dagster.errors import SourceError

_EXCEL = "In Excel: Save as, `CSV UTF-8 (Comma delimited)`."
_UTF_16 = f"Save it as UTF-8. {_EXCEL} What it calls `Unicode text` is UTF-16."
#: First bytes, what a file that begins so is, and what to do. UTF-32 begins as UTF-16 does, so it stands first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32", "Save it as UTF-8."),
    (codecs.BOM_UTF32_BE, "UTF-32", "Save it as UTF-8."),
    (codecs.BOM_UTF16_LE, "UTF-16", _UTF_16),
    (codecs.BOM_UTF16_BE, "UTF-16", _UTF_16),
    (b"\x1f\x8b", "gzip", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "zstandard", "Unpack it first."),
    (b"PK\x03\x04", "a zip archive, as Excel's workbooks (.xlsx) are", f"Unpack it first, or export it. {_EXCEL}"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", _EXCEL),
    (b"PAR1", "parquet", "Give `format: parquet`."),
)


def lines(path: Path) -> Generator[tuple[int, str], None, None]:
    """Decoded lines with their numbers from 1, line ends kept; a byte order mark is dropped.

    Raises:
        SourceError: The file cannot be opened or is no text; a byte that is not UTF-8, with its line and offset.
    """
    offset = 0
    try:
        file = path.open("rb")
    except OSError as error:
        raise SourceError(str(path), f"cannot be opened: {error.strerror}.", "Check who may read it.") from None
    with file:
        for number, raw in enumerate(file, start=1):
            if number == 1:
                for mark, kind, step in _MARKS:
                    if raw.startswith(mark):
                        raise SourceError(str(path), f"the file is {kind}, not text in UTF-8.", step)
                if raw.startswith(codecs.BOM_UTF8):
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                    offset = len(codecs.BOM_UTF8)
            place = f"{path}:{number}"
            if b"\0" in raw:  # of UTF-16 without a mark, Latin letters are valid UTF-8 with NULs between
                reason = f"a NUL byte at offset {offset + raw.index(0)}: the file is UTF-16, or no text."
                raise SourceError(place, reason, _UTF_16)
            try:
                yield number, raw.decode()
            except UnicodeDecodeError as error:
                raise SourceError(place, *_not_utf_8(raw[error.start], offset + error.start)) from None
            offset += len(raw)


def _not_utf_8(byte: int, offset: int) -> tuple[str, str]:
    """Reason and next step. Whoever sees their own letter knows which encoding it was."""
    letter = bytes([byte]).decode("cp1252", "ignore")
    reason = f"not UTF-8: byte 0x{byte:02x} at offset {offset}" + (f", {letter!r} in Windows-1252." if letter else ".")
    return reason, f"Save the file as UTF-8. {_EXCEL} Elsewhere: `iconv -f WINDOWS-1252 -t UTF-8`."
