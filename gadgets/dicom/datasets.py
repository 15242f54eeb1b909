"""MR Image Storage datasets from ISMRMRD images."""

from __future__ import annotations

import hashlib
import logging

import ismrmrd
from ismrmrd.xsd import ismrmrdHeader
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from gadgets.dicom.attributes import COMMENT_KEYS, WARNING_KEYS, attribute, scan_of
from gadgets.dicom.equipment import add_equipment, software_version
from gadgets.dicom.geometry import ImageGeometry, image_geometry
from gadgets.dicom.identity import Identity, identity_of, stable_uid, without_identity
from gadgets.dicom.instance_numbers import InstanceNumbers
from gadgets.dicom.mr_image import SCAN_OPTIONS, add_mr_image, user_codes
from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom.patient import add_deidentification, add_patient_and_study
from gadgets.dicom.pixels import stored_pixels
from gadgets.dicom.real_world import add_real_world
from gadgets.dicom.series import add_series
from gadgets.dicom.times import TICK_S, add_times
from gadgets.dicom.values import Warn, decimal, text_value
from gadgets.image_values import output_of
from gadgets.scan_digest import image_digest
from gadgets.survey import Survey

log = logging.getLogger("genrecon")


class ScanDatasets:
    """Makes the datasets of the images of one scan, which have one identity and are numbered together.

    Parameters
    ----------
    header : ismrmrd.xsd.ismrmrdHeader
    parameters : settings; `folder` is not used
    warn : takes one line for each thing the files cannot say as the header does
    survey : of the lines, where they are known beforehand
    """

    def __init__(self, header: ismrmrdHeader, parameters: DicomParameters, warn: Warn, survey: Survey | None) -> None:
        self._header, self._parameters, self._warn = header, parameters, warn
        self._numbers = InstanceNumbers(header, survey)
        self._identity: Identity | None = None

    def of(self, image: ismrmrd.Image, written_as: ismrmrd.Image | None = None) -> list[FileDataset]:
        """Datasets of an image, as `dicom_datasets` makes them; the scan's identity is that of its first image.

        Parameters
        ----------
        image : of the scan
        written_as : image whose pixels and type the datasets have; None: the same
        """
        if self._identity is None:
            scan = scan_of(image) or image_digest(image)
            self._identity = identity_of(self._header, self._parameters, self._warn, scan)
        return dicom_datasets(
            written_as or image,
            self._header,
            self._parameters,
            self._warn,
            numbers=self._numbers,
            identity=self._identity,
        )


def dicom_datasets(
    image: ismrmrd.Image,
    header: ismrmrdHeader,
    parameters: DicomParameters | None = None,
    warn: Warn = log.warning,
    scan: str | None = None,
    numbers: InstanceNumbers | None = None,
    identity: Identity | None = None,
) -> list[FileDataset]:
    """MR Image Storage datasets of one ISMRMRD image: one a partition and channel, partitions innermost.

    Patient, study, series and frame of reference come from the header; UIDs it does not give are derived from it and
    from the scan's data, so that a replay of a scan gives the same UIDs, another scan with an equal header or another
    method or prior another series, and other pixels another SOP Instance UID. Pixels are uint16: integers from 0 to
    65535 as they are, everything else scaled, with RescaleSlope and RescaleIntercept back to the image's values. When
    the meta attributes hold an image scale r and offset o (pixel = value r + o) the rescaled values are the true
    ones, value = (pixel - o) / r; the window is in rescaled values (DICOM PS3.3 C.11.2) and LINEAR_EXACT when
    narrower than 1, which LINEAR does not allow.

    Parameters
    ----------
    image : ismrmrd.Image
        Data (cha, z, y, x), any real type; magnitude, phase (radians), real or imaginary part.
    header : ismrmrd.xsd.ismrmrdHeader
        ISMRMRD header of the scan.
    parameters : DicomParameters, optional
        Settings; `folder` is not used.
    warn : callable, optional
        Takes one line for each thing the file cannot say as the header does.
    scan : str, optional
        Digest of the scan's data, the same for all of its images; None: the one among the image's meta attributes.
    numbers : InstanceNumbers, optional
        Those of the scan's images so far; None: by the counters of this image alone.
    identity : Identity, optional
        That of the scan, for the same header, parameters and `scan`; None: made anew, which takes most of the time.

    Returns
    -------
    list of pydicom.dataset.FileDataset
        Explicit VR little endian, ready for `save_as`.

    Raises
    ------
    ReconError
        If the image is complex or colour, has NaN or infinite values, or no field of view is known.
    """
    parameters = parameters or DicomParameters()
    numbers = numbers or InstanceNumbers(header)
    pixels = stored_pixels(image, warn, parameters.phase_rescale)
    geometry = image_geometry(image, header, warn)
    identity = identity or identity_of(header, parameters, warn, scan_of(image) if scan is None else scan)
    if parameters.anonymize:
        header = without_identity(header, identity.patient_id)

    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 192"
    common.SOPClassUID = MRImageStorage
    add_patient_and_study(common, header, identity, warn)
    add_equipment(common, header, warn)
    add_series(common, image, header, identity, parameters, warn)
    add_mr_image(common, image, header, warn)
    add_times(common, image, header, parameters, warn)
    common.ContentQualification = "RESEARCH"
    common.BurnedInAnnotation = "NO"
    common.LossyImageCompression = "00"
    if comments := _comments(image, parameters, geometry, warn):
        common.ImageComments = comments
    if parameters.anonymize:
        add_deidentification(common)

    common.AcquisitionNumber = image.repetition + 1
    if (repetitions := numbers.size("repetition")) > 1 or image.repetition > 0:
        common.TemporalPositionIdentifier = image.repetition + 1
        common.NumberOfTemporalPositions = max(repetitions, image.repetition + 1)
    trigger_ms = image.physiology_time_stamp[0] * TICK_S * 1e3
    gated = {"CG", "PPG"} & set(user_codes(header, "scanOptions", SCAN_OPTIONS))  # TriggerTime is for these alone
    if gated and numbers.size("phase") > 1 and 0 <= trigger_ms < 10_000:
        common.TriggerTime = decimal(trigger_ms)

    dx, dy, dz = geometry.spacing
    channels, partitions, rows, columns = image.data.shape
    common.ImageOrientationPatient = [decimal(cosine) for cosine in (*geometry.row, *geometry.column)]
    common.PixelSpacing = [decimal(dy), decimal(dx)]
    common.SliceThickness = decimal(dz)
    if partitions > 1:
        common.SpacingBetweenSlices = decimal(dz)
    common.SamplesPerPixel = 1
    common.PhotometricInterpretation = "MONOCHROME2"
    common.Rows, common.Columns = rows, columns
    common.BitsAllocated, common.BitsStored = 16, pixels.bits
    common.HighBit = pixels.bits - 1
    common.PixelRepresentation = 0
    common.WindowCenter, common.WindowWidth = decimal(pixels.window_center), decimal(pixels.window_width)
    if pixels.window_width < 1:
        common.VOILUTFunction = "LINEAR_EXACT"
    if pixels.slope is not None:
        common.RescaleIntercept, common.RescaleSlope = decimal(pixels.intercept), decimal(pixels.slope)
        common.RescaleType = "US"
    if pixels.real_world is not None:
        add_real_world(common, output_of(image), *pixels.real_world, largest=2**pixels.bits - 1)

    datasets = []
    for channel in range(channels):
        for partition in range(partitions):
            ds = new_file()
            ds.update(common)
            first = geometry.pixel(0, 0, partition)
            frame = pixels.stored[channel, partition]
            stored = frame.astype("<u2").tobytes()
            ds.ImagePositionPatient = [decimal(round(float(mm), 6)) for mm in first]
            ds.SliceLocation = decimal(round(float(first @ geometry.step), 6))
            ds.InstanceNumber = numbers.take(ds.SeriesInstanceUID, image, channel, partition)
            ds.SOPInstanceUID = stable_uid(
                "image",
                ds.SeriesInstanceUID,
                *(
                    str(getattr(image, name))
                    for name in (
                        "measurement_uid",
                        "acquisition_time_stamp",
                        "average",
                        "slice",
                        "contrast",
                        "phase",
                        "repetition",
                        "set",
                        "image_index",
                    )
                ),
                str(channel),
                str(partition),
                hashlib.sha256(stored).hexdigest(),  # another image is another instance, whatever setting made it so
            )
            ds.add_new("SmallestImagePixelValue", "US", int(frame.min()))
            ds.add_new("LargestImagePixelValue", "US", int(frame.max()))
            ds.add_new("PixelData", "OW", stored)
            ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            datasets.append(ds)
    return datasets


def new_file() -> FileDataset:
    """An empty dataset for a file in explicit VR little endian."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = stable_uid("implementation")
    meta.ImplementationVersionName = f"GENRECON {software_version()}"[:16].strip()
    return FileDataset("", {}, preamble=b"\0" * 128, file_meta=meta)


def _comments(image: ismrmrd.Image, parameters: DicomParameters, geometry: ImageGeometry, warn: Warn) -> str:
    warnings = attribute(image, WARNING_KEYS)
    if geometry.assumed:
        warnings = [*warnings, "the raw data has no orientation: patient position and sides are not known"]
    lines = [f"WARNING: {text}" for text in warnings]
    lines += [] if parameters.anonymize else attribute(image, COMMENT_KEYS)
    return text_value("\r\n".join(lines), "LT", warn)
