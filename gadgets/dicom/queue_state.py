"""What the attempts to send a queue so far say about the next one."""

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
    """What the attempts so far say about the next one.

    Times are of the monotonic clock, which all processes of a machine share until it restarts; then everything is due.
    The wall clock is not asked, however it jumps.
    """

    failures: int = 0
    due: float = 0.0
    reason: str = ""
    files: dict[str, FileState] = field(default_factory=dict)

    def to_json(self) -> str:
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
    """Of a file with trouble: attempts in which the PACS went away, refusals, when it is due."""

    breaks: int = 0
    refusals: int = 0
    due: float = 0.0


@functools.cache
def _boot() -> str:
    """What tells one run of this machine from another: its monotonic clock goes from boot to boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return secrets.token_hex(8)
