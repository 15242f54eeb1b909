"""The state of a queue between attempts to send it, kept in a file."""

from __future__ import annotations

import functools
import json
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class QueueState:
    """Failed attempts so far, why the last one failed, and when the next one is due.

    Times are those of the monotonic clock, which all processes of a machine share until it restarts; then everything
    is due. Changes of the wall clock have no effect.
    """

    failures: int = 0
    due: float = 0.0
    reason: str = ""
    files: dict[str, FileState] = field(default_factory=dict)

    def to_json(self) -> str:
        """The state as text; `from_json` reads it."""
        files = {name: [state.breaks, state.refusals, state.due] for name, state in self.files.items()}
        return json.dumps(
            {"boot": _boot(), "failures": self.failures, "due": self.due, "reason": self.reason, "files": files}
        )

    @classmethod
    def from_json(cls, text: str | bytes, longest_s: float) -> QueueState:
        """A state from its text, nothing due later than `longest_s` from now. Raises ValueError for other text."""
        try:
            values: Any = json.loads(text)
            latest = time.monotonic() + longest_s if values["boot"] == _boot() else 0.0
            files = {
                str(name): FileState(int(breaks), int(refusals), min(float(due), latest))
                for name, (breaks, refusals, due) in values["files"].items()
            }
            return cls(int(values["failures"]), min(float(values["due"]), latest), str(values["reason"]), files)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from None


@dataclass
class FileState:
    """A file that failed: attempts that broke off at it, refusals, and when it is due again."""

    breaks: int = 0
    refusals: int = 0
    due: float = 0.0


@functools.cache
def _boot() -> str:
    """Identifier of this boot of the machine: its monotonic clock starts anew at each."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return secrets.token_hex(8)
