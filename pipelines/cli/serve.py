"""`genrecon serve`: a server for MRD streams."""

from __future__ import annotations

import contextlib
import logging
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gadgets.errors import ReconError, reason_of
from pipelines.cli.console import log_to_stderr
from pipelines.cli.options import DEFAULT_CHAIN

if TYPE_CHECKING:
    from pipelines.flat_parameters import FlatParameter


def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: a free one.")] = 9002,
    bind: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network.")] = "127.0.0.1",
    chains: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of chains besides the shipped ones.")
    ] = None,
    default_chain: Annotated[
        str, typer.Option(help="Chain for Siemens Open Recon, which names it by its parameter config or not at all.")
    ] = DEFAULT_CHAIN,
    site: Annotated[
        Path | None,
        typer.Option(help="JSON with parameters of your own for Open Recon, as `genrecon openrecon-package` takes it."),
    ] = None,
    scans: Annotated[int, typer.Option(min=1, max=64, help="Scans at a time, each in a process of its own.")] = 1,
    waiting: Annotated[int, typer.Option(min=0, max=1000, help="Scans that may wait; more are refused.")] = 8,
    dicom: Annotated[
        Path | None, typer.Option(help="Folder for DICOM files of the chains; without it, none are written.")
    ] = None,
    time_budget: Annotated[
        float, typer.Option(min=0.0, help="time_budget_s of generative reconstructions; 0: 90 % of --longest.")
    ] = 0.0,
    memory: Annotated[float, typer.Option(min=0.5, help="Memory limit of a scan, in GiB.")] = 16.0,
    scan_size: Annotated[float, typer.Option(min=0.001, help="Size limit of a scan's data, in GiB.")] = 64.0,
    read_ahead: Annotated[
        float, typer.Option(min=0.0, help="GiB of each waiting scan that are buffered in a temporary file.")
    ] = 1.0,
    idle: Annotated[
        float, typer.Option(min=0.1, help="Seconds without traffic after which a client is disconnected.")
    ] = 60.0,
    longest: Annotated[float, typer.Option(min=1.0, help="Time limit of a scan, and of its waiting, in s.")] = 3600.0,
    grace: Annotated[float, typer.Option(min=0.0, help="Seconds that running scans get to finish at the end.")] = 60.0,
    status_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="HTTP port of /health, /metrics and the status page.")
    ] = None,
    status_bind: Annotated[str, typer.Option(help="Address of the HTTP port.")] = "127.0.0.1",
    pacs: Annotated[
        str,
        typer.Option(
            help="PACS that DICOM is sent to: dicom://AE@host:port, dicom-tls://... or https://host/dicom-web."
        ),
    ] = "",
    spool: Annotated[
        Path | None, typer.Option(help="Folder where DICOM waits for the PACS.  [default with --pacs: dicom-spool]")
    ] = None,
    keep_raw: Annotated[
        Path | None, typer.Option(help="Folder where the raw data of all scans are kept, with patient data.")
    ] = None,
    keep_raw_size: Annotated[float, typer.Option(min=0.001, help="Most disk space for kept raw data, in GiB.")] = 50.0,
    keep_raw_age: Annotated[float, typer.Option(min=0.001, help="Days that raw data are kept.")] = 7.0,
    answer_within: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Seconds from the last line of a scan to the answer to its client: later images are fetched, needs "
            "--keep-raw; 0: the client waits.",
        ),
    ] = 0.0,
    late_scans: Annotated[
        int, typer.Option(min=1, max=64, help="Scans that go on in the background at a time, after that answer.")
    ] = 1,
    warm: Annotated[str, typer.Option(help="Methods loaded before the first scan; empty: none.")] = "svd_wkgm",
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Write log lines as JSON.")] = False,
) -> None:
    """Serve scans: MRD streams of Gadgetron's client and of Siemens FIRE.

    Chains are named after the shipped ones and those of --chains; a chain that a client sends may use the gadgets of
    the shipped ones only. SIGTERM and Ctrl-C stop the server: running scans are finished, new ones refused.
    """
    from gadgets.dicom.parameters import DicomParameters
    from gadgets.dicom_output import spool_and_destination
    from pipelines.server.chain_names import chain_by_name
    from pipelines.server.fork_server import ForkServer
    from pipelines.server.listener import Server
    from pipelines.server.processes import raise_descriptor_limit
    from pipelines.server.settings import Limits, ServeSettings
    from pipelines.server.status import StatusServer

    if answer_within and keep_raw is None:
        raise ReconError("--answer-within: late images need the raw data; give --keep-raw, too")
    raise_descriptor_limit()
    log_to_stderr(json_logs)
    spool = (spool or Path("dicom-spool")).absolute() if spool or pacs else None
    spool_and_destination(DicomParameters(pacs=pacs, spool=str(spool or "")))
    for option, folder in {"--spool": spool, "--dicom": dicom}.items():
        if folder is not None:
            _check_writable(option, folder)
    limits = Limits(memory_gib=memory, scan_gib=scan_size, ahead_gib=read_ahead, idle_s=idle, scan_s=longest)
    settings = ServeSettings(
        bind=bind,
        port=port,
        chains=chains,
        default_chain=default_chain,
        parameters=_site_parameters(site),
        scans=scans,
        waiting=waiting,
        warm=tuple(filter(None, (name.strip() for name in warm.split(",")))),
        limits=limits,
        time_budget_s=time_budget,
        dicom=dicom,
        pacs=pacs,
        spool=spool,
        grace_s=grace,
        keep_raw=keep_raw.absolute() if keep_raw else None,
        keep_raw_gib=keep_raw_size,
        keep_raw_days=keep_raw_age,
        answer_within_s=answer_within,
        late_scans=late_scans,
    )
    chain_by_name(default_chain, settings)  # there is none: better now than at the first scan
    with ForkServer() as fork_server, contextlib.ExitStack() as stack:
        fork_server.start()  # imports while the server starts
        server = Server(settings, fork_server)
        stack.callback(server.stop)
        if status_port is not None:
            status = StatusServer(server, status_port, status_bind, spool)
            stack.callback(status.close)
            logging.getLogger("genrecon").info("status on http://%s:%d/", status_bind, status.port)
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: threading.Thread(target=server.stop, daemon=True).start())
        server.run()


def _check_writable(option: str, folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ReconError(f"{option} {folder}: it cannot be written to ({reason_of(error)}); give another one") from None


def _site_parameters(site: Path | None) -> tuple[FlatParameter, ...]:
    if site is None:
        return ()
    from pipelines.openrecon.site import read_site  # knows all methods: it loads torch

    return read_site(site).flat()
