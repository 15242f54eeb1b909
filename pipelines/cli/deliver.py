"""`genrecon deliver`: queued DICOM files to their PACS."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from gadgets.errors import ReconError, counted
from pipelines.cli.console import log_to_stderr, print_line


def deliver(
    spool: Annotated[
        Path, typer.Option(help="Folder that the property 'spool' of dicom_output names.", show_default=False)
    ],
    once: Annotated[
        bool, typer.Option("--once", help="Try every file once and exit; exit code 1 when files are left.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Show how many files wait for which PACS; send none.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry-failed", help="First queue the files again that a PACS refused for good.")
    ] = False,
) -> None:
    """Send the DICOM files of a spool folder to their PACS, and new ones as they come, until it is stopped.

    Scans send their files themselves, and `genrecon serve` those of its spool. This command sends files that were left
    while the PACS was unreachable; it may run at the same time, and as a service.
    """
    from gadgets.dicom.delivery import deliver as serve
    from gadgets.dicom.delivery import deliver_once, retry_failed, spool_status

    if (once or status or retry) and not spool.exists():
        raise ReconError(f"deliver: there is no spool {spool}; give the folder that the property 'spool' names")
    if retry:
        print_line(f"{counted(retry_failed(spool), 'file')} put back")
    if status:
        for queue in spool_status(spool):
            print_line(f"{queue.pacs}: {queue.text()} ({queue.folder})")
        return
    log_to_stderr()
    if once:
        if left := deliver_once(spool):
            raise ReconError(f"deliver: {counted(left, 'file')} left in the spool; see the lines above")
        return
    if not spool.exists():
        logging.getLogger("genrecon").info("there is no spool %s yet; waiting for it", spool)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # a service is stopped this way
    with contextlib.suppress(KeyboardInterrupt):
        serve(spool, threading.Event())
