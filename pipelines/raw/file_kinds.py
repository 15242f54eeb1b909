"""Files of other formats, told by their first bytes."""

from __future__ import annotations

from pathlib import Path

from gadgets.errors import counted

_BEGINNINGS = {
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"BZh": "compressed by bzip2: unpack it",
    b"\xfd7zXZ": "compressed by xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\x93NUMPY": "an array of numpy",
    b'{"yardl"': "an MRD 2 stream as text (NDJSON): write it in the binary format",
    b"<?xml": "an XML text",
    b"<ismrmrdHeader": "an XML text",
    b"MATLAB 5.0": "a file of MATLAB before version 7.3",
    b"version https://git-lfs": "only a pointer of Git LFS: fetch the file itself",
}


def images_only(count: int) -> str:
    """What is said of a file that holds so many images and no raw data."""
    return f"it holds {counted(count, 'image')} and no raw data; give the raw data that images are made of"


def first_bytes(path: Path, count: int = 256) -> bytes:
    """The beginning of a file; nothing when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""


def format_of(path: Path) -> str:
    """What a file seems to be, as the end of a sentence that says what it is not; "" when that is not known."""
    return format_of_bytes(first_bytes(path))


def format_of_bytes(begin: bytes) -> str:
    """The same of the bytes that it begins with."""
    if not begin:
        return " (it is empty: not written yet, or not copied)"
    if begin[128:132] == b"DICM":
        return " (it is a DICOM file)"
    found = next((text for start, text in _BEGINNINGS.items() if begin.startswith(start)), "")
    return f" (it is {found})" if found else ""
