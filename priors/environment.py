"""Environment variables that torch, NumPy and Numba read when they are imported.

Every package of this project imports `priors` first, so that they are set before any of those libraries is loaded.
This module must not import one of them.
"""

import atexit
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path


def set_thread_environment() -> None:
    """Let waiting worker threads sleep, and OpenBLAS use one thread; a user's own settings stay.

    Threads of torch and OpenBLAS otherwise spin while they wait for each other. Where other processes or gadgets want
    the same cores, that makes a reconstruction tens of times slower. NumPy multiplies only small matrices here.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def ensure_numba_cache() -> None:
    """Give Numba a temporary cache folder where it can write to none of its own: SigPy cannot be imported otherwise.

    Numba tries the folder of SigPy's compiled modules, then the user's cache.
    """
    sigpy = importlib.util.find_spec("sigpy")
    if "NUMBA_CACHE_DIR" in os.environ or sigpy is None or sigpy.origin is None:
        return
    user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not any(map(_is_writable, (Path(sigpy.origin).parent / "__pycache__", Path(user_cache) / "numba"))):
        os.environ["NUMBA_CACHE_DIR"] = folder = tempfile.mkdtemp(prefix="genrecon-numba-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _is_writable(folder: Path) -> bool:
    """Whether a folder exists, or can be made, and takes a new file; tried the way Numba does it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
