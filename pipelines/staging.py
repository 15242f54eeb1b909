"""Results that appear in a folder all at once, or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gadgets.stream import ReconError


@contextlib.contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` at the end of the block.

    Where `folder` exists, the files move into it. After an error the temporary folder and the parents that were made
    for it are removed. Raises ReconError when nothing can be written there.
    """
    missing = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(20, "it is a file")
        if folder.is_dir() and not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
        # Within a folder that is there already: it may be a mount of its own, below one that cannot be written to.
        where = folder if folder.is_dir() else folder.parent
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=where))
        staging.chmod(0o755)
    except OSError as error:
        _remove_empty(missing)
        raise _unwritable(folder, error) from None
    try:
        yield staging
        if not folder.exists():
            staging.rename(folder)
            return
        for source in sorted(staging.rglob("*")):  # a folder before what is in it
            target = folder / source.relative_to(staging)
            if source.is_dir():
                target.mkdir(mode=source.stat().st_mode & 0o777, exist_ok=True)
            else:
                os.replace(source, target)
    except ReconError as error:
        if str(staging) in str(error) and isinstance(error.__context__, OSError):
            raise _unwritable(folder, error.__context__) from None
        raise
    except (OSError, RuntimeError) as error:
        if hasattr(error, "stage") or (isinstance(error, RuntimeError) and "errno = " not in str(error)):
            raise  # not of the folder, but of a gadget
        raise _unwritable(folder, error) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(missing)


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[int]:
    """Yield a descriptor to write a file that appears at the end of the block; after an error it does not.

    What is no regular file, a named pipe for instance, is written to as it is. Raises ReconError when nothing can be
    written there.
    """
    plain = path.is_file() or not path.exists()
    unfinished = path.with_name(f".{path.name}.partial-{os.getpid()}") if plain else path
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | (os.O_CREAT | os.O_TRUNC if plain else 0), 0o666)
    except OSError as error:
        raise _unwritable_file(path, error) from None
    try:
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        if plain:
            os.replace(unfinished, path)
    except OSError as error:
        raise _unwritable_file(path, error) from None
    finally:
        if plain:
            with contextlib.suppress(OSError):
                unfinished.unlink()


def _unwritable_file(path: Path, error: OSError) -> ReconError:
    return ReconError(f"{path}: cannot write there ({write_failure(error)}); free space or choose another file")


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:  # the innermost first
        with contextlib.suppress(OSError):
            folder.rmdir()


def write_failure(error: Exception) -> str:
    """Why something could not be written, from an error of the system or of HDF5."""
    found = re.search(r"error message = '([^']+)'", str(error))  # HDF5's way to say it
    return found[1] if found else str(getattr(error, "strerror", None) or error)


def _unwritable(folder: Path, error: Exception) -> ReconError:
    return ReconError(
        f"{folder}: cannot write there ({write_failure(error)}); free space or choose another folder with --out"
    )
