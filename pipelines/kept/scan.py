"""One scan that a server keeps: a folder of its raw data and of what is needed to reconstruct them again."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gadgets.files import replace_file
from gadgets.noise.coils import Coil
from gadgets.noise.scan import ChosenNoise, NoiseScan
from gadgets.reference_scan import ChosenReference, reference_from_bytes
from gadgets.stream import ReconError, reason_of

ARRIVES, WHOLE, INCOMPLETE = "arrives", "whole", "incomplete"
RAW_FILE = "scan.h5"
STREAM_FILE = "scan.mrd"  # while it arrives; until the ISMRMRD file is made of it
CHAIN_FILE = "chain.xml"  # as it ran, with all its properties
SENT_CHAIN_FILE = "sent_chain.xml"  # as the client sent it
ABOUT_FILE = "about.json"
NOISE_FILE = "noise.npz"  # of another measurement
REFERENCE_FILE = "reference.npz"  # likewise


@dataclass(frozen=True)
class About:
    """What is known of a kept scan, nothing of a patient in it.

    Parameters
    ----------
    number : of the scan in the server's log
    received : when it came, ISO 8601 in UTC
    state : ARRIVES; WHOLE; or INCOMPLETE: lines are missing, its client left or its process was ended
    config : name of the chain that the client gave; None: it sent the chain
    texts : that the client sent after the header, FIRE's parameters among them
    of_fire : whether the client was FIRE's
    chain : name of the chain
    anonymize : whether the chain leaves patient and study out of DICOM: then the header is kept without them
    noise, noise_name : what images say of the noise of another measurement; empty: there was none
    reference, reference_name : likewise of a reference scan
    images : number of images that the server sent
    error : why the scan failed
    """

    number: int = 0
    received: str = ""
    state: str = ARRIVES
    config: str | None = None
    texts: tuple[str, ...] = ()
    of_fire: bool = False
    chain: str = ""
    anonymize: bool = False
    noise: str = ""
    noise_name: str = ""
    reference: str = ""
    reference_name: str = ""
    images: int = 0
    error: str = ""


@dataclass(frozen=True)
class KeptScan:
    """A kept scan.

    Parameters
    ----------
    folder : its name is the scan's id
    """

    folder: Path
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.folder.name)

    @property
    def stream(self) -> Path:
        """The stream that it is while it arrives."""
        return self.folder / STREAM_FILE

    @property
    def raw(self) -> Path:
        """The raw file: ISMRMRD, or, before that is made, the stream as it came."""
        made = self.folder / RAW_FILE
        return made if made.exists() else self.stream

    @property
    def about(self) -> About:
        """What is known of it. Raises ReconError where that cannot be read."""
        path = self.folder / ABOUT_FILE
        try:
            table = json.loads(path.read_bytes())
            known = {entry.name for entry in dataclasses.fields(About)}
            values = {name: value for name, value in table.items() if name in known}
            return About(**(values | {"texts": tuple(values.get("texts", ()))}))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged"
            raise ReconError(f"{path}: this is no record of a kept scan ({reason})") from None

    def change(self, **changes: Any) -> None:
        """Write what is known, with these changes. Raises OSError, and ReconError as `about`."""
        self.write_about(dataclasses.replace(self.about, **changes))

    def write_about(self, about: About) -> None:
        """Write what is known. Raises OSError."""
        replace_file(self.folder / ABOUT_FILE, json.dumps(dataclasses.asdict(about), indent=1).encode(), private=True)

    def write(self, name: str, content: bytes) -> None:
        """Write one of its files. Raises OSError."""
        replace_file(self.folder / name, content, private=True)

    def write_noise(self, noise: NoiseScan) -> None:
        """Keep the noise of another measurement. Raises OSError."""
        self.write(NOISE_FILE, _noise_bytes(noise))

    def noise(self) -> ChosenNoise | None:
        """The noise of another measurement that the scan was prewhitened with; None: its own, or none."""
        path = self.folder / NOISE_FILE
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as found:
                about = json.loads(found["about"].tobytes())
                coils = tuple(Coil(*coil) for coil in about["coils"])
                scan = NoiseScan(found["covariance"], about["samples"], about["dwell_us"], coils=coils)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged"
            raise ReconError(f"{path}: this is no kept noise ({reason})") from None
        return ChosenNoise(scan, self.about.noise, self.about.noise_name)

    def reference(self) -> ChosenReference | None:
        """The reference scan of another measurement that was at hand; None: there was none."""
        path = self.folder / REFERENCE_FILE
        if not path.exists():
            return None
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ReconError(f"{path}: this is no kept reference scan ({reason_of(error)})") from None
        about = self.about
        return ChosenReference(reference_from_bytes(content, str(path)), about.reference, about.reference_name)

    def size(self) -> int:
        """Bytes of its files."""
        found = 0
        for path in self.folder.rglob("*"):
            try:
                found += path.stat().st_blocks * 512 if path.is_file() else 0
            except FileNotFoundError:  # it was just renamed
                continue
        return found


def _noise_bytes(noise: NoiseScan) -> bytes:
    about: Mapping[str, Any] = {"samples": noise.samples, "dwell_us": noise.dwell_us, "coils": noise.coils}
    file = io.BytesIO()
    np.savez(file, covariance=noise.covariance, about=np.frombuffer(json.dumps(about).encode(), np.uint8))
    return file.getvalue()


def kept_scan_of(raw: Path) -> KeptScan:
    """The kept scan that a raw file is of. Raises ReconError where it is of none."""
    folder = raw if raw.is_dir() else raw.parent
    if not (folder / ABOUT_FILE).is_file():
        raise ReconError(
            f"{raw}: its folder has no configuration that a server kept; give a scan of the folder of serve --keep-raw"
        )
    return KeptScan(folder)
