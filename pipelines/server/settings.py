"""How to serve, what clients may take of a server, and how a scan ends: what it and its processes both know."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class Limits:
    """What a client may send; more is refused before it is read.

    Parameters
    ----------
    text_mib : of chain, header and texts together
    message_mib : of one acquisition or waveform
    scan_gib : of all messages of a scan
    memory_gib : that a scan may need, as `pipelines.server.memory` estimates it and as its process then takes
    ahead_gib : of a scan that waits, kept in a file until its turn
    handshake_s : for chain and header, from the connection on
    idle_s : without a byte of a message that is due, or without one taken of an answer
    scan_s : for a scan, from its turn on; also the longest that it waits for that
    """

    text_mib: float = 4.0
    message_mib: float = 64.0
    scan_gib: float = 64.0
    memory_gib: float = 16.0
    ahead_gib: float = 1.0
    handshake_s: float = 10.0
    idle_s: float = 60.0
    scan_s: float = 3600.0


@dataclass(frozen=True)
class ServeSettings:
    """How to serve.

    Parameters
    ----------
    bind, port : where to listen; port 0 takes a free one
    chains : folder of chains beside the shipped ones, found by the names of their files
    scans : scans that run at a time, a process each
    waiting : scans that wait for that; more are told that the server is busy
    warm : methods that are made ready before the first scan
    limits : see there
    time_budget_s : of every scan with a generative method, unless its chain says another; 0: what `limits` leave
    dicom : folder below which the chains' DICOM files are written; None: none
    pacs : that they are sent to, as the DICOM gadget has it; empty: none, but for chains of the server that name one
    spool : folder where they wait for that; what is in it is delivered as long as the server runs
    grace_s : that running scans have when the server is stopped
    """

    bind: str = "127.0.0.1"
    port: int = 9002
    chains: Path | None = None
    scans: int = 1
    waiting: int = 8
    warm: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    time_budget_s: float = 0.0
    dicom: Path | None = None
    pacs: str = ""
    spool: Path | None = None
    grace_s: float = 60.0


class Ended(NamedTuple):
    """How a scan ended.

    Parameters
    ----------
    error : for the log, if it failed
    told : for the client, if that can still be told something
    goes_on : whether the process can take another scan
    """

    error: str = ""
    told: str = ""
    goes_on: bool = True
