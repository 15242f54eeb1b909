"""Every image of the stream as DICOM, to a folder and to a PACS."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import ismrmrd
from pydicom.dataset import FileDataset

from gadgets.dicom.datasets import ScanDatasets, dicom_datasets
from gadgets.dicom.delivery import deliver_in_background
from gadgets.dicom.destination import Destination
from gadgets.dicom.enhanced.instances import enhanced_datasets
from gadgets.dicom.frames import Frames
from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom.spool import add_to_spool, queue_folder
from gadgets.dicom.values import Warn
from gadgets.dicom.writer import encoded, write_datasets, write_dicom
from gadgets.image_values import is_complex_output
from gadgets.stream import Gadget, ReconError, one_line, reason_of
from gadgets.stream.digest import Settings

__all__ = ["DicomOutput", "dicom_datasets", "spool_and_destination", "write_dicom"]

log = logging.getLogger("genrecon")

ENDED_EARLY = "the scan ended early: images are missing"
NO_FOLDER = "none"  # value of the property 'folder' with which no files are written


@dataclasses.dataclass
class _Written:
    """What became of the files of a scan."""

    count: int = 0
    files: set[Path] = dataclasses.field(default_factory=set)
    spooled: list[Path] = dataclasses.field(default_factory=list)
    lost: list[ReconError] = dataclasses.field(default_factory=list)  # why files could not be written


class DicomOutput(Gadget):
    """Writes every image of the stream as DICOM and passes it on unchanged.

    A file is an image (MR Image Storage) or, with `frames=enhanced`, a series (Enhanced MR Image Storage).

    With a PACS, files go to the spool first and from there to the PACS, in a thread of its own: the scan does not wait
    for it, and what the PACS does not take now stays in the spool (see `gadgets.dicom.spool`). Images pass on even when
    the disk is full.
    """

    Parameters: ClassVar[type] = DicomParameters

    def configure(self, header: Any, properties: Mapping[str, str]) -> None:
        """Take header and properties; what an earlier scan left in the spool is delivered from now on.

        Raises ReconError for a bad property, and when there is neither a folder nor a PACS.
        """
        super().configure(header, properties)
        self._spool, self._destination = spool_and_destination(self.parameters)
        folder_name = self.parameters.folder.strip()
        if not folder_name and not self._destination:
            raise ReconError(
                f"gadget {self.name}: it has neither property 'folder' nor 'pacs'; name a folder that no one else can "
                f"read, a PACS, or folder '{NO_FOLDER}' to write no DICOM"
            )
        self._writes_folder = folder_name not in {"", NO_FOLDER}
        if self._destination:
            folder = queue_folder(self._spool, self._destination)
            if folder.is_dir() and self.parameters.deliver:
                deliver_in_background(folder)

    @classmethod
    def image_settings(cls, properties: Mapping[str, str]) -> Settings:
        """None: it changes no image."""
        return []

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        """Write `ismrmrd.Image` items, yield all items. Raises ReconError as `write_dicom`, after the last one.

        Enhanced files are written when the items end; when they end early, with an error or because nobody reads on,
        with the images so far and a warning in them.
        """
        seen: set[str] = set()

        def warn_once(text: str) -> None:
            if text not in seen:
                seen.add(text)
                log.warning("%s: %s", self.name, text)

        scan = ScanDatasets(self.header, self.parameters, warn_once, self.survey)
        written = _Written()
        with contextlib.closing(Frames()) as frames:
            try:
                for item in items:
                    if isinstance(item, ismrmrd.Image) and is_complex_output(item):
                        warn_once(
                            "complex images only pass on: DICOM has no place for them; ask generative_recon for output "
                            "real and imaginary too"
                        )
                    elif isinstance(item, ismrmrd.Image) and (self._writes_folder or self._destination):
                        datasets = scan.of(item)
                        if self.parameters.frames == "single":
                            self._write(datasets, written, warn_once)
                        else:
                            self._keep(frames, item, datasets, written)
                    yield item
            except BaseException:
                self._write_what_came(frames, written, warn_once)
                raise
            self._write_enhanced(frames, written, warn_once)
        if self._destination and written.spooled and self.parameters.deliver:
            sender = deliver_in_background(queue_folder(self._spool, self._destination))
            if left := sender.wait(written.spooled, self.parameters.pacs_wait_s):
                warn_once(
                    f"{left} of {len(written.spooled)} files wait in the spool for {self._destination.pacs}; the next "
                    f"scan or genrecon deliver --spool {self._spool} sends them"
                )
        if len(written.files) < written.count:
            warn_once(
                f"{written.count} images are {len(written.files)} DICOM files: some have the same counters, position "
                "and pixels, and replaced each other"
            )
        if self._writes_folder:
            log.info("%s: %d files in %s", self.name, written.count, self.parameters.folder)
        if self._destination:
            log.info("%s: %d files in the spool %s", self.name, len(written.spooled), self._spool)
        if written.lost:
            raise written.lost[0]  # only now: all images have passed on

    def _write(self, datasets: list[FileDataset], written: _Written, warn: Warn) -> None:
        """Write datasets to the spool and the folder."""
        contents = [encoded(ds) for ds in datasets]
        if self._destination:
            written.spooled += self._spool_files(contents, self._destination, written.lost)
        try:
            if self._writes_folder:
                paths = write_datasets(datasets, contents, self.parameters)
                written.count += len(paths)
                written.files.update(paths)
        except ReconError as error:
            if self._destination:
                warn(str(error).removeprefix(f"{self.name}: "))
            else:
                written.lost.append(error)

    def _keep(self, frames: Frames, image: ismrmrd.Image, datasets: list[FileDataset], written: _Written) -> None:
        """Keep an image for the enhanced files."""
        try:
            frames.add(image, datasets, placed=True)
        except OSError as error:
            written.lost.append(self._no_room(error))

    def _no_room(self, error: OSError) -> ReconError:
        return ReconError(
            f"{self.name}: images cannot be kept in the folder for temporary files ({reason_of(error)}); free disk "
            "space there, or set TMPDIR to a folder with room, and reconstruct again"
        )

    def _write_what_came(self, frames: Frames, written: _Written, warn: Warn) -> None:
        """Write the series after an error; what keeps them from being written is a warning: that error is raised."""
        try:
            self._write_enhanced(frames, written, warn, ENDED_EARLY)
        except Exception as error:
            warn(f"the enhanced DICOM files of the images that came cannot be written ({one_line(error)})")
        for lost in written.lost[:1]:
            warn(one_line(lost).removeprefix(f"{self.name}: "))

    def _write_enhanced(self, frames: Frames, written: _Written, warn: Warn, warning: str = "") -> None:
        """Write the series that were kept."""
        if not len(frames):
            return
        if warning:
            warn(f"{warning}; the enhanced DICOM files hold the {len(frames)} images that came")
        elif written.lost:
            warning = "images are missing: there was no room for them"
        try:
            for dataset in enhanced_datasets(frames, warning):
                self._write([dataset], written, warn)
        except OSError as error:
            written.lost.append(self._no_room(error))

    def _spool_files(self, contents: list[bytes], destination: Destination, lost: list[ReconError]) -> list[Path]:
        """Put files into the spool and have them sent; those that could be written there."""
        paths = []
        for content in contents:
            try:
                paths.append(add_to_spool(self._spool, destination, content))
            except OSError as error:
                lost.append(
                    ReconError(
                        f"{self.name}: cannot write to the spool '{self._spool}' ({reason_of(error)}): images do not "
                        "reach the PACS; give it a folder that can be written to and has room, and reconstruct again"
                    )
                )
        if paths and self.parameters.deliver:
            deliver_in_background(paths[0].parent)
        return paths


def spool_and_destination(parameters: DicomParameters) -> tuple[Path, Destination | None]:
    """Absolute path of the spool and where its files go, None without a PACS. Raises ReconError for a bad property."""
    if not parameters.pacs.strip():
        return Path(), None
    try:
        files = {
            name: str(Path(value).expanduser().absolute()) if (value := getattr(parameters, name).strip()) else ""
            for name in ("spool", "ca_file", "certificate_file", "key_file", "token_file")
        }
    except RuntimeError as error:
        raise ReconError(f"gadget DicomOutput: {error}; give absolute paths instead of '~'") from None
    spool = files.pop("spool")
    if not spool:
        raise ReconError("gadget DicomOutput: property 'spool' is empty; name the folder where files wait for the PACS")
    destination = Destination(
        pacs=parameters.pacs.strip(),
        calling_ae=parameters.calling_ae.strip(),
        timeout_s=parameters.pacs_timeout_s,
        keep_delivered=parameters.keep_delivered,
        **files,
    )
    destination.tls_context()
    destination.token()
    return Path(spool), destination
