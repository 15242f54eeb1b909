"""Settings of a server, and the limits it sets its clients."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipelines.flat_parameters import FlatParameter


@dataclass(frozen=True)
class Limits:
    """What a client may send and use.

    Parameters
    ----------
    text_mib : most of chain, header and texts together, in MiB
    message_mib : most of one acquisition or waveform, in MiB
    scan_gib : most of all messages of a scan, in GiB
    memory_gib : most memory of a scan in GiB, estimated (`memory_estimate`) and measured (`memory_limit`)
    ahead_gib : most of a waiting scan that is read ahead into a file, in GiB
    handshake_s : longest time from the connection to the end of the header
    idle_s : longest time without a byte of a message that is due, or without the client taking a byte of an answer
    scan_s : longest time that a scan runs; also the longest that it waits for that
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
    """Settings of a server.

    Parameters
    ----------
    bind, port : address to listen on; port 0 takes a free one
    chains : folder of chains besides the shipped ones, named like their files
    default_chain : chain for clients that cannot name one, see `chain_names.DEFAULT_NAMES`
    parameters : flat parameters besides those of `flat_parameter_table.TABLE`
    scans : scans that run at a time, each in a process of its own
    waiting : most scans that wait; further ones are refused as "busy"
    warm : methods that are loaded before the first scan
    limits : what clients may send and use
    time_budget_s : time budget of generative methods whose chain gives none; 0: a share of `limits.scan_s`
    dicom : folder for the DICOM files of the chains; None: none are written
    pacs : where those are sent; empty: nowhere, unless a chain of the server names a PACS
    spool : folder where they wait for the PACS; its files are delivered while the server runs
    grace_s : how long running scans may go on when the server is stopped
    keep_raw : folder where the raw data of all scans are kept; None: they are not
    keep_raw_gib, keep_raw_days : most that they take, in GiB, and how long they stay
    answer_within_s : time from the last line of a scan to the answer to its client, with `keep_raw`: what is not ready
        by then comes later; 0: the client waits
    late_scans : scans that run on in the background at a time
    """

    bind: str = "127.0.0.1"
    port: int = 9002
    chains: Path | None = None
    default_chain: str = "cg_sense"
    parameters: tuple[FlatParameter, ...] = ()
    scans: int = 1
    waiting: int = 8
    warm: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    time_budget_s: float = 0.0
    dicom: Path | None = None
    pacs: str = ""
    spool: Path | None = None
    grace_s: float = 60.0
    keep_raw: Path | None = None
    keep_raw_gib: float = 50.0
    keep_raw_days: float = 7.0
    answer_within_s: float = 0.0
    late_scans: int = 1
