"""Arrays and models: Fourier transforms, low rank, sparsity, generative priors, posterior sampling."""

import atexit
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

# Worker threads of torch and OpenBLAS spin while they wait for each other; where other processes (or other gadgets'
# threads) want the cores too, that makes a reconstruction tens of times slower. numpy only multiplies small matrices
# here. Read when torch and numpy are first imported; set them yourself to have it otherwise.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _is_writable(folder: Path) -> bool:
    """Whether it is there or can be made, and written to, tried as Numba does it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _let_numba_cache() -> None:
    """Make a folder where Numba has none: it looks beside SigPy and in the user's cache, else SigPy does not import."""
    found = importlib.util.find_spec("sigpy")
    if "NUMBA_CACHE_DIR" in os.environ or found is None or found.origin is None:
        return
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not any(map(_is_writable, (Path(found.origin).parent / "__pycache__", Path(cache) / "numba"))):
        os.environ["NUMBA_CACHE_DIR"] = folder = tempfile.mkdtemp(prefix="genrecon-numba-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


_let_numba_cache()
