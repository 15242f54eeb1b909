"""The storage server of a real Gadgetron (mrd-storage-server), where its NoiseAdjustGadget keeps noise covariances."""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import http.client
import re
import socket
import threading
import urllib.parse
from typing import Any

from gadgets.noise.covariance_file import read_covariance
from gadgets.noise.scan import NoiseScan, measurement_id, noise_dependencies
from gadgets.stream import ReconError, reason_of

ADDRESS_VARIABLE = "GADGETRON_STORAGE_ADDRESS"  # as Gadgetron sets it for the programs that it starts
TIMEOUT_S = 5.0  # for all of an answer
MOST_BYTES = 2**26
_STRUCTURED_ID = re.compile(r"([^_]*)_([^_]*)_([^_]*)_[^_]*")  # device, patient, study, measurement


def stored_noise(address: str, header: Any, timeout_s: float = TIMEOUT_S) -> NoiseScan | None:
    """The noise that a header names in measurementDependency, from a storage server; None where that has none.

    The query is that of Gadgetron 4.7: the latest blob called noise_covariance of this patient, device and study, with
    the ID of the measurement. It holds the patient's ID, so no other host than this one is asked.

    Parameters
    ----------
    address : http://HOST:PORT
    header : ISMRMRD header of the scan
    timeout_s : most seconds that a query may take

    Raises
    ------
    ReconError
        The address is none, nothing answers in time, or the answer is no noise covariance.
    """
    for measurement in noise_dependencies(header):
        tags = _tags(header, measurement)
        if tags is None:
            continue
        path = "/v1/blobs/data/latest?" + urllib.parse.urlencode(tags, quote_via=urllib.parse.quote)
        found = _fetched(address, path, timeout_s)
        if found is not None:
            content, modified = found
            noise = read_covariance(content, f"storage server {plain_address(address)}")
            moment = None
            with contextlib.suppress(TypeError, ValueError):
                moment = email.utils.parsedate_to_datetime(modified).astimezone().replace(tzinfo=None)
            return dataclasses.replace(
                noise,
                measurement=measurement,
                moment=moment,
                origin="another measurement, from the storage server",
                name=f"measurement {measurement}",
            )
    return None


def plain_address(address: str) -> str:
    """Host and port of an address, without what else may be in it. Raises ReconError for what is no address."""
    try:
        parts = urllib.parse.urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https"):
        raise ReconError("the address of the storage server is no address; give http://HOST:PORT")
    return f"{host}:{port}" if port else host


def _tags(header: Any, measurement: str) -> dict[str, str] | None:
    """The tags of a query as Gadgetron makes them; None where the patient is not known, which it needs."""
    system, subject, study = header.acquisitionSystemInformation, header.subjectInformation, header.studyInformation
    device = (system.deviceID if system else None) or ""
    patient = (subject.patientID if subject else None) or ""
    session = (study.studyID if study else None) or ""
    if match := _STRUCTURED_ID.fullmatch(measurement_id(header)):
        device, patient, session = device or match[1], patient or match[2], session or match[3]
    if not patient and (match := _STRUCTURED_ID.fullmatch(measurement)):
        device, patient, session = match.groups()
    if not patient:
        return None
    tags = {"subject": patient, "device": device, "session": session, "name": "noise_covariance"}
    return {name: value for name, value in tags.items() if value} | {"measurement": measurement}


def _fetched(address: str, path: str, timeout_s: float) -> tuple[bytes, str] | None:
    """Content and time of a blob; None where there is none."""
    peer = plain_address(address)
    parts = urllib.parse.urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    late = threading.Event()

    def end() -> None:
        """An answer that comes byte by byte passes every time-out of its single parts."""
        late.set()
        with contextlib.suppress(OSError, AttributeError):
            connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        connection.request("GET", parts.path.rstrip("/") + path)
        answer = connection.getresponse()
        if answer.status == http.client.NOT_FOUND:
            return None
        if answer.status != http.client.OK:
            raise ReconError(f"storage server {peer}: it answers with HTTP status {answer.status}; see its log")
        content = answer.read(MOST_BYTES)
        if late.is_set():
            raise TimeoutError
        return content, answer.headers.get("Last-Modified", "")
    except (OSError, http.client.HTTPException) as error:
        if late.is_set() or isinstance(error, TimeoutError):
            raise ReconError(f"storage server {peer}: it does not answer in time; look whether it runs") from None
        reason = reason_of(error) if isinstance(error, OSError) else "this is no HTTP"
        raise ReconError(f"storage server {peer}: no answer ({reason}); start it or correct the address") from None
    finally:
        timer.cancel()
        connection.close()
