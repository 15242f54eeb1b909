"""Every series of the stream as NIfTI files, at its end."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import ismrmrd
import numpy as np

from gadgets.dicom.datasets import ScanDatasets
from gadgets.dicom.frames import Frames
from gadgets.dicom.geometry import image_geometry
from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom.values import quiet
from gadgets.image_values import values_of
from gadgets.images import make_image
from gadgets.nifti.files import write_nifti
from gadgets.outputs import COMPLEX
from gadgets.stream import Gadget, ReconError, parameter, reason_of
from gadgets.stream.digest import Settings
from priors.extras import require

log = logging.getLogger("genrecon")


def _of_dicom(name: str) -> Any:
    """A property that means the same as that of DicomOutput."""
    own = DicomParameters.__dataclass_fields__[name]
    return dataclasses.field(default=own.default, metadata=own.metadata)


@dataclass(frozen=True)
class NiftiParameters:
    """Properties of `NiftiOutput`."""

    folder: str = parameter(
        "", "folder for the files, made with mode 0700; '~' is the home folder; it must be given", local=True
    )
    anonymize: bool = _of_dicom("anonymize")
    salt: str = _of_dicom("salt")
    chain_digest: str = _of_dicom("chain_digest")
    series_description: str = _of_dicom("series_description")
    series_number_offset: int = _of_dicom("series_number_offset")
    phase_rescale: str = _of_dicom("phase_rescale")


class NiftiOutput(Gadget):
    """Writes every series of the stream as NIfTI (.nii.gz) with a JSON sidecar when the scan ends; passes images on.

    Geometry and values are those of DicomOutput's files. A file is a regular grid of slices: echoes, slices at unequal
    distances and slices in several directions are files of their own. It needs nibabel
    (`pip install 'gadgetron-genrecon[nifti]'`).
    """

    Parameters: ClassVar[type] = NiftiParameters

    def configure(self, header: Any, properties: Mapping[str, str]) -> None:
        """Take header and properties. Raises ReconError for a bad one, ModuleNotFoundError without nibabel."""
        super().configure(header, properties)
        require("nibabel")
        if not self.parameters.folder.strip():
            raise ReconError(f"gadget {self.name}: property 'folder' is empty; name the folder for the NIfTI files")

    @classmethod
    def image_settings(cls, properties: Mapping[str, str]) -> Settings:
        """None: it changes no image."""
        return []

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield all items; write the series at the end.

        Raises ReconError, after the last item, when the folder cannot be written to; at once for images that
        `dicom_datasets` refuses.
        """
        named = {name: getattr(self.parameters, name) for name in NiftiParameters.__dataclass_fields__}
        parameters = DicomParameters(**named)
        scan = ScanDatasets(self.header, parameters, quiet, self.survey)
        frames = Frames()
        try:
            for item in items:
                if isinstance(item, ismrmrd.Image):
                    placed = not image_geometry(item, self.header, quiet).assumed
                    values = values_of(item) if np.iscomplexobj(item.data) else None
                    datasets = scan.of(item, item if values is None else _magnitude(item))
                    if values is not None:
                        for dataset in datasets:
                            dataset.ImageType = [*dataset.ImageType[:2], *COMPLEX.terms]
                            dataset.ComplexImageComponent = COMPLEX.component
                    with self._disk():
                        frames.add(item, datasets, placed, values)
                yield item
            with self._disk():
                folder = Path(self.parameters.folder.strip()).expanduser()
                paths = write_nifti(frames, folder, lambda text: log.warning("%s: %s", self.name, text))
            log.info("%s: %d files in %s", self.name, len(paths), folder)
        finally:
            frames.close()

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """Errors of the disk as ReconError."""
        try:
            yield
        except (OSError, RuntimeError) as error:  # RuntimeError: expanduser finds no home
            raise ReconError(
                f"{self.name}: cannot write to folder '{self.parameters.folder}' or the folder of temporary files "
                f"({reason_of(error)}); free disk space there or set the property 'folder' to another folder"
            ) from None


def _magnitude(image: ismrmrd.Image) -> ismrmrd.Image:
    """The magnitude of a complex image, for the attributes that DICOM would have of it."""
    head = image.getHead()
    head.image_type = ismrmrd.IMTYPE_MAGNITUDE
    return make_image(head, np.abs(image.data).astype(np.float32), image.attribute_string)
