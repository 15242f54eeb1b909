"""Python twins of the C++ gadgets that take readouts to buffers, under Gadgetron's class and property names.

With them an XML chain written for Gadgetron 4.7 runs in process. Each does what the C++ gadget of that name does; where
it differs, its docstring says so.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.types import AcquisitionBucket, ReconData
from gadgetron.types.acquisition_bucket import AcquisitionBucketStats
from gadgetron.types.recon_data import ReconBit, ReconBuffer, SamplingDescription

from gadgets.stream import Gadget, ReconError, parameter

log = logging.getLogger("genrecon")

Array = np.ndarray[Any, np.dtype[Any]]

COUNTERS = (
    "kspace_encode_step_1",
    "kspace_encode_step_2",
    "average",
    "slice",
    "contrast",
    "phase",
    "repetition",
    "set",
    "segment",
)


def with_data(acquisition: ismrmrd.Acquisition, data: Array, **header_fields: int) -> ismrmrd.Acquisition:
    """A copy of an acquisition with other data (coil, sample) and changed header fields."""
    head = acquisition.getHead()
    head.active_channels, head.number_of_samples = data.shape
    for name, value in header_fields.items():
        setattr(head, name, value)
    return ismrmrd.Acquisition(head, np.ascontiguousarray(data, dtype=np.complex64), acquisition.traj)


_NOT_FOR_IMAGES = (
    ismrmrd.ACQ_IS_NAVIGATION_DATA,
    ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
    ismrmrd.ACQ_IS_DUMMYSCAN_DATA,
    ismrmrd.ACQ_IS_RTFEEDBACK_DATA,
    ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA,
)


def is_for_images(acquisition: ismrmrd.Acquisition | ismrmrd.AcquisitionHeader) -> bool:
    """Whether a line is imaging or calibration data: not noise, navigator, phase correction, dummy or feedback."""
    if acquisition.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT) or any(map(acquisition.is_flag_set, _NOT_FOR_IMAGES)):
        return False
    return not acquisition.is_flag_set(ismrmrd.ACQ_IS_PHASECORR_DATA) or _is_calibration(acquisition)


def _is_calibration(acquisition: ismrmrd.Acquisition | ismrmrd.AcquisitionHeader) -> bool:
    return acquisition.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION) or acquisition.is_flag_set(
        ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING
    )


def calibration_mode(encoding: Any) -> str:
    """The calibration mode of an encoding, "" when the header gives none."""
    mode = encoding.parallelImaging.calibrationMode if encoding.parallelImaging else None
    return str(getattr(mode, "value", mode) or "")


def encoding_of(header: Any, acquisition: Any) -> Any:
    """The encoding an acquisition (or its header) belongs to. Raises ReconError when the header lacks it."""
    index = acquisition.encoding_space_ref
    if index >= len(header.encoding):
        raise ReconError(
            f"header: acquisition {acquisition.scan_counter} refers to encoding {index}, but it has only "
            f"{len(header.encoding)}; the raw data and its header do not belong together"
        )
    return header.encoding[index]


# --- noise ---------------------------------------------------------------------------------------------------------


def noise_covariance(noise: list[Array]) -> Array:
    """Covariance C = N N^H / (n - 1) of noise readouts.

    Parameters
    ----------
    noise : list of complex arrays (coil, sample)

    Returns
    -------
    complex128 array (coil, coil)
    """
    samples = np.concatenate(noise, axis=1).astype(np.complex128)
    return samples @ samples.conj().T / max(samples.shape[1] - 1, 1)


def prewhitening_matrix(covariance: Array, scale: float) -> Array:
    """Matrix scale * L^-1 with C = L L^H, which makes noise white and of variance scale^2.

    Parameters
    ----------
    covariance : complex array (coil, coil)
    scale : factor of the whitened data

    A covariance that has no Cholesky factor (a silent coil, fewer samples than coils) is loaded on its diagonal first.

    Returns complex64 (coil, coil).
    """
    if not np.any(covariance):
        return np.eye(len(covariance), dtype=np.complex64) * np.float32(scale)
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        log.warning("NoiseAdjustGadget: the noise covariance is singular (a silent coil?); its diagonal is loaded")
        loading = 1e-3 * np.trace(covariance).real / len(covariance)
        factor = np.linalg.cholesky(covariance + loading * np.eye(len(covariance)))
    inverse = np.linalg.solve(factor, np.eye(len(covariance)))
    return (scale * inverse).astype(np.complex64)


class NoiseAdjustGadget(Gadget):
    """Prewhitens with the noise scan in the stream: data <- sqrt(2 dwell / noise dwell * bandwidth) L^-1 data.

    Lines before the noise scan pass unchanged. Unlike the C++ gadget it has no storage server: a noise scan in another
    file is not looked up, and said so; and `scale_only_channels_by_name` means the coils of these names (the C++ one
    takes their place in the list for the coil's number).
    """

    @dataclass(frozen=True)
    class Parameters:
        perform_noise_adjust: bool = parameter(True, "prewhiten; false passes the data as they are")
        pass_nonconformant_data: bool = parameter(True, "pass data whose coil count differs from the noise's")
        noise_dwell_time_us_preset: float = parameter(0.0, "accepted for Gadgetron; not used", minimum=0.0)
        scale_only_channels_by_name: str = parameter("", "coil names, by commas, that are scaled but not mixed")
        noise_dependency_prefix: str = parameter("", "accepted for Gadgetron; not used")
        noise_dependency_folder: str = parameter("", "accepted for Gadgetron; not used")

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        noise: list[Array] = []
        noise_dwell = 0.0
        matrix: Array | None = None
        adjust = self.parameters.perform_noise_adjust
        warned = False
        unwhitened = 0
        for item in items:
            if not isinstance(item, ismrmrd.Acquisition):
                yield item
                continue
            if item.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT):
                if adjust and matrix is None:
                    noise.append(item.data)
                    noise_dwell = noise_dwell or item.sample_time_us
                continue
            if adjust and matrix is None and noise:
                matrix = self._matrix(noise, noise_dwell, item.sample_time_us)
                noise.clear()
                if unwhitened:
                    log.warning(
                        "NoiseAdjustGadget: %d lines came before the noise scan: only the others are prewhitened",
                        unwhitened,
                    )
            if matrix is None:
                unwhitened += 1
                yield item
            elif item.active_channels == len(matrix):
                yield with_data(item, matrix @ item.data)
            elif self.parameters.pass_nonconformant_data:
                if not warned:
                    log.warning(
                        "NoiseAdjustGadget: the data have %d coils, the noise scan %d; they are not prewhitened",
                        item.active_channels,
                        len(matrix),
                    )
                warned = True
                yield item
            else:
                raise ReconError(
                    f"gadget NoiseAdjustGadget: acquisition {item.scan_counter} has {item.active_channels} coils, the "
                    f"noise scan {len(matrix)}; set pass_nonconformant_data or mend the raw data"
                )
        if adjust and matrix is None:
            self._warn_of_no_noise()

    def _warn_of_no_noise(self) -> None:
        information = self.header.measurementInformation
        dependencies = information.measurementDependency if information else []
        elsewhere = any(dependency.dependencyType.lower() == "noise" for dependency in dependencies)
        where = "; the header names a measurement of it, which is not in this stream" if elsewhere else ""
        log.warning("NoiseAdjustGadget: no noise scan in the stream%s; the data are not prewhitened", where)

    def _matrix(self, noise: list[Array], noise_dwell: float, dwell: float) -> Array:
        information = self.header.measurementInformation
        if information is None or not information.measurementID:
            log.warning(
                "NoiseAdjustGadget: measurementInformation/measurementID is missing in the header; "
                "a real Gadgetron stops here, this twin goes on"
            )
        system = self.header.acquisitionSystemInformation
        bandwidth = (system.relativeReceiverNoiseBandwidth if system else None) or 0.793
        scale = np.sqrt(2 * dwell / noise_dwell * bandwidth) if dwell and noise_dwell else 1.0
        covariance = noise_covariance(noise)
        names = [name.strip() for name in self.parameters.scale_only_channels_by_name.split(",")]
        labels = [label.coilName for label in system.coilLabel] if system else []
        for channel, label in enumerate(labels[: len(covariance)]):
            if label in names:
                variance = covariance[channel, channel]
                covariance[channel, :] = covariance[:, channel] = 0
                covariance[channel, channel] = variance
        return prewhitening_matrix(covariance, float(scale))


# --- readout -------------------------------------------------------------------------------------------------------


class AsymmetricEchoAdjustROGadget(Gadget):
    """Fills a partial readout with zeros up to the encoded matrix, so that the echo is at its centre."""

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, ismrmrd.Acquisition) and not item.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT):
                item = self._centred(item)
            yield item

    def _centred(self, item: ismrmrd.Acquisition) -> ismrmrd.Acquisition:
        samples, centre = item.number_of_samples, item.center_sample
        full = encoding_of(self.header, item).encodedSpace.matrixSize.x
        if 2 * centre == samples or centre >= samples or samples >= full:
            return item
        missing = full - samples
        before = 2 * centre < samples
        data = np.zeros((item.active_channels, full), dtype=np.complex64)
        data[:, missing if before else 0 :][:, :samples] = item.data
        return with_data(
            item,
            data,
            discard_pre=missing if before else 0,
            discard_post=0 if before else missing,
            center_sample=full // 2,
        )


def centred_fft(data: Array, inverse: bool = False) -> Array:
    """Centred orthonormal FFT along the last axis: complex array (..., sample) to complex64 of the same shape."""
    transform = np.fft.ifft if inverse else np.fft.fft
    shifted = np.fft.ifftshift(data, axes=-1)
    return np.fft.fftshift(transform(shifted, axis=-1, norm="ortho"), axes=-1).astype(np.complex64, copy=False)


class RemoveROOversamplingGadget(Gadget):
    """Cuts the readout's field of view to the reconstructed one: inverse FFT, keep the centre, FFT.

    Unlike the C++ gadget it looks at each acquisition's own encoding, not only the first one's.
    """

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, ismrmrd.Acquisition):
                encoding = encoding_of(self.header, item)
                encoded, recon = encoding.encodedSpace, encoding.reconSpace
                ratio = np.float32(encoded.fieldOfView_mm.x) / np.float32(recon.fieldOfView_mm.x)
                if encoded.matrixSize.x != recon.matrixSize.x or ratio != 1:
                    item = self._cut(item, ratio)
            yield item

    def _cut(self, item: ismrmrd.Acquisition, ratio: np.float32) -> ismrmrd.Acquisition:
        samples = item.number_of_samples

        def shortened(count: int) -> int:
            return int(np.float32(count) / ratio)  # in single precision, which decides where it is a close thing

        kept = shortened(samples)
        if not 0 < kept <= samples:
            raise ReconError(
                f"header: encoded field of view is smaller than the reconstructed one along the readout "
                f"({ratio:.3g} of it); correct encodedSpace or reconSpace"
            )
        start = (samples - kept) // 2
        image = centred_fft(item.data, inverse=True)[:, start : start + kept]
        return with_data(
            item,
            centred_fft(image),
            center_sample=shortened(item.center_sample),
            discard_pre=shortened(item.discard_pre),
            discard_post=shortened(item.discard_post),
        )


# --- buckets and buffers -------------------------------------------------------------------------------------------

_DIMENSIONS = (*COUNTERS, *(f"user_{index}" for index in range(8)), "n_acquisitions", "none", "")
BUFFER_COUNTERS = ("average", "slice", "contrast", "phase", "repetition", "set", "segment")  # that sort into buffers
_BUFFER_DIMENSIONS = ("average", "contrast", "phase", "repetition", "set", "segment", "slice", "none", "")


def _counter(head: Any, dimension: str) -> int:
    if dimension in {"", "none", "n_acquisitions"}:
        return 0
    if dimension.startswith("user_"):
        return int(head.idx.user[int(dimension[5:])])
    return int(getattr(head.idx, dimension))


class AcquisitionAccumulateTriggerGadget(Gadget):
    """Collects acquisitions into buckets, by `sorting_dimension`, until `trigger_dimension` changes.

    Unlike the C++ gadget it can send a slice's bucket as soon as that slice is complete
    (`release_complete_slices`; a real Gadgetron ignores the property): the first image is out before the scan ends,
    and memory does not grow with the number of slices. A slice is complete at a line flagged ACQ_LAST_IN_SLICE whose
    average, contrast, phase and set are the header's last ones, in a 2D encoding sorted by slice; with separate or
    external calibration, calibration lines of that slice must have come before in the same repetition. Calibration
    lines that come after that are left out. So are navigator, dummy, feedback and surface coil lines, which the C++
    gadget takes for imaging lines.
    """

    @dataclass(frozen=True)
    class Parameters:
        trigger_dimension: str = parameter("none", "counter whose change sends the buckets", choices=_DIMENSIONS)
        sorting_dimension: str = parameter("none", "counter that sorts lines into buckets", choices=_DIMENSIONS)
        n_acquisitions_before_trigger: int = parameter(40, "lines before the first trigger", minimum=1)
        n_acquisitions_before_ongoing_trigger: int = parameter(40, "lines before later triggers", minimum=1)
        release_complete_slices: bool = parameter(True, "send a slice when its last line has come")
        verbose: bool = parameter(False, "accepted for Gadgetron; not used")

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        trigger, sorting = self.parameters.trigger_dimension, self.parameters.sorting_dimension
        early = self.parameters.release_complete_slices and sorting == "slice"
        early = early and trigger in {"repetition", "none", ""}
        buckets: dict[int, list[ismrmrd.Acquisition]] = defaultdict(list)
        waveforms: list[Any] = []
        released: set[int] = set()
        calibrated: set[int] = set()
        left_out = late = 0
        ends = _SliceEnds()
        previous: int | None = None
        count, target = 0, self.parameters.n_acquisitions_before_trigger

        def send() -> Iterator[AcquisitionBucket]:
            for index in sorted(buckets):
                yield _bucket(buckets.pop(index), waveforms)
                waveforms.clear()
            released.clear()
            calibrated.clear()

        for item in items:
            if isinstance(item, ismrmrd.Waveform):
                waveforms.append(item)
                continue
            if not isinstance(item, ismrmrd.Acquisition):
                yield item
                continue
            if not is_for_images(item):
                left_out += not item.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
                continue
            ends.add(item)
            value = _counter(item, trigger)
            if trigger != "n_acquisitions" and previous is not None and value != previous:
                yield from send()
            previous = value
            index = _counter(item, sorting)
            if index in released and item.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION):
                late += 1
                continue
            if index in released:
                raise ReconError(
                    f"gadget AcquisitionAccumulateTriggerGadget: a line of slice {index} came after its "
                    "ACQ_LAST_IN_SLICE; set its property release_complete_slices to false"
                )
            buckets[index].append(item)
            if _is_calibration(item):
                calibrated.add(index)
            if early and self._completes_slice(item, index in calibrated):
                yield _bucket(buckets.pop(index), waveforms)
                waveforms.clear()
                released.add(index)
            count += 1
            if trigger == "n_acquisitions" and count >= target:
                yield from send()
                count, target = 0, self.parameters.n_acquisitions_before_ongoing_trigger
        yield from send()
        for text in ends.doubts(self.header):
            log.warning("%s: %s; the scan may be incomplete", self.name, text)
        if left_out:
            log.warning("%s: %d navigator, phase correction or feedback lines are left out", self.name, left_out)
        if late:
            log.warning(
                "%s: %d calibration lines came after their slice was complete and are left out; set its property "
                "release_complete_slices to false to use them",
                self.name,
                late,
            )

    def _completes_slice(self, item: ismrmrd.Acquisition, calibrated: bool) -> bool:
        if not item.is_flag_set(ismrmrd.ACQ_LAST_IN_SLICE) or item.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION):
            return False
        encoding = encoding_of(self.header, item)
        limits = encoding.encodingLimits
        if calibration_mode(encoding) in {"separate", "external"} and not calibrated:
            return False

        def last(name: str) -> bool:
            limit = getattr(limits, name)
            return int(getattr(item.idx, name)) == (limit.maximum if limit else 0)

        names = ["average", "contrast", "phase", "set"]
        if self.parameters.trigger_dimension != "repetition":
            names.append("repetition")
        return len(self.header.encoding) == 1 and encoding.encodedSpace.matrixSize.z == 1 and all(map(last, names))


class _SliceEnds:
    """Which slices of which repetitions came, and came to their end in a scan that flags these ends."""

    def __init__(self) -> None:
        self._slices: dict[tuple[int, int, int], bool] = {}
        self._flagged = False

    def add(self, item: ismrmrd.Acquisition) -> None:
        """Take a line into account."""
        if item.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION):
            return  # its slice may have ended before
        key = (item.encoding_space_ref, item.idx.slice, item.idx.repetition)
        last = item.is_flag_set(ismrmrd.ACQ_LAST_IN_SLICE)
        self._flagged = self._flagged or last or item.is_flag_set(ismrmrd.ACQ_FIRST_IN_SLICE)
        self._slices[key] = self._slices.get(key, False) or last

    def doubts(self, header: Any) -> Iterator[str]:
        """What seems to be missing."""
        missing = sum(not ended for ended in self._slices.values()) if self._flagged else 0
        if missing:
            yield f"{missing} of {len(self._slices)} slices have no line flagged ACQ_LAST_IN_SLICE"
        for number, encoding in enumerate(header.encoding):
            limit = encoding.encodingLimits.slice
            came = len({index for space, index, _ in self._slices if space == number})
            if limit is not None and 0 < came <= limit.maximum - limit.minimum:
                yield f"{came} of {limit.maximum - limit.minimum + 1} slices of the header came"


def _bucket(acquisitions: list[ismrmrd.Acquisition], waveforms: list[Any]) -> AcquisitionBucket:
    data, ref = [], []
    for item in acquisitions:
        if _is_calibration(item):
            ref.append(item)
        skipped = (ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, ismrmrd.ACQ_IS_PHASECORR_DATA)
        if not any(map(item.is_flag_set, skipped)):
            data.append(item)
    return AcquisitionBucket(data, _stats(data), ref, _stats(ref), list(waveforms))


def _stats(acquisitions: list[ismrmrd.Acquisition]) -> list[AcquisitionBucketStats]:
    spaces = 1 + max((item.encoding_space_ref for item in acquisitions), default=-1)
    values: list[dict[str, set[int]]] = [{name: set() for name in COUNTERS} for _ in range(spaces)]
    for item in acquisitions:
        for name in COUNTERS:
            values[item.encoding_space_ref][name].add(int(getattr(item.idx, name)))
    return [AcquisitionBucketStats(**space) for space in values]


def _limit(encoding: Any, name: str, size: int) -> tuple[int, int, int]:
    limit = getattr(encoding.encodingLimits, name)
    return (limit.minimum, limit.center, limit.maximum) if limit else (0, size // 2, size - 1)


class BucketToBufferGadget(Gadget):
    """Sorts a bucket's lines into buffers [RO, E1, E2, CHA, N, S, LOC], the k-space centre at the matrix centre.

    Differences from the C++ gadget: a scan without `parallelImaging` gets the encoded matrix like any other (the
    C++ one takes the number of lines within the encoding limits, which loses lines of a partial Fourier scan); N, S
    and LOC begin at the lowest counter that came (the C++ one lets the highest overwrite each other when it is not 0),
    and slices along N or S have a place each (there they overwrite each other); more slices than the header's limits
    allow are an error (there they overwrite each other or the server dies);
    two lines for the same place are reported (in both the later one stays); Cartesian encodings only.
    """

    @dataclass(frozen=True)
    class Parameters:
        N_dimension: str = parameter("none", "counter along the buffers' N", choices=_BUFFER_DIMENSIONS)
        S_dimension: str = parameter("none", "counter along the buffers' S", choices=_BUFFER_DIMENSIONS)
        split_slices: bool = parameter(False, "one buffer a slice instead of slices along LOC")
        ignore_segment: bool = parameter(False, "lines of all segments go to one buffer")
        verbose: bool = parameter(False, "accepted for Gadgetron; not used")

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, AcquisitionBucket):
                yield from self._buffers(item)
            else:
                yield item

    def _buffers(self, bucket: AcquisitionBucket) -> Iterator[ReconData]:
        groups: dict[tuple[int, ...], dict[int, dict[bool, _Filling]]] = defaultdict(lambda: defaultdict(dict))
        for is_ref, lines, stats in ((True, bucket.ref, bucket.refstats), (False, bucket.data, bucket.datastats)):
            for line in lines:
                space = line.encoding_space_ref
                filling = groups[self._key(line)][space]
                if is_ref not in filling:
                    encoding = encoding_of(self.header, line)
                    filling[is_ref] = _Filling(self.parameters, encoding, stats[space], line, is_ref)
                filling[is_ref].add(line)
        for _, spaces in sorted(groups.items()):
            if not any(False in filling for filling in spaces.values()):
                log.warning("BucketToBufferGadget: calibration lines without imaging lines are dropped")
                continue
            bits = []
            for space in range(max(spaces) + 1):  # the place in the list is the encoding space
                filling = spaces.get(space, {})
                data = filling[False].buffer() if False in filling else _empty_buffer()
                bits.append(ReconBit(data, filling[True].buffer() if True in filling else None))
            yield ReconData(bits)

    def _key(self, line: ismrmrd.Acquisition) -> tuple[int, ...]:
        key = {name: int(getattr(line.idx, name)) for name in BUFFER_COUNTERS}
        for dimension in (self.parameters.N_dimension, self.parameters.S_dimension):
            if dimension in key and dimension != "slice":
                key[dimension] = 0
        if not self.parameters.split_slices:
            key["slice"] = 0
        if self.parameters.ignore_segment:
            key["segment"] = 0
        return tuple(key.values())


def _empty_buffer() -> ReconBuffer:
    empty = np.zeros((0,) * 7, dtype=np.complex64)
    return ReconBuffer(empty, None, None, np.empty((0,) * 5, dtype=object), SamplingDescription())


class _Filling:
    """One buffer while lines are sorted into it."""

    def __init__(self, parameters: Any, encoding: Any, stats: Any, line: ismrmrd.Acquisition, is_ref: bool) -> None:
        self._parameters = parameters
        self._space = encoding.encodedSpace.matrixSize
        self._limits = encoding.encodingLimits
        self._mode = calibration_mode(encoding) or "embedded"
        self._centred = not is_ref or self._mode == "embedded"
        own_block = is_ref and self._mode in {"separate", "external"}
        e1, e2 = stats.kspace_encode_step_1, stats.kspace_encode_step_2
        if own_block:
            lines = max(e1) - min(e1) + 1
            low, _, high = _limit(encoding, "kspace_encoding_step_2", self._space.z)
            partitions = max(high - low + 1, max(e2) - min(e2) + 1)
            self._first = (min(e1), min(e2))
        else:
            lines, partitions = self._space.y, self._space.z
            self._first = (0, 0)
        limits_1 = _limit(encoding, "kspace_encoding_step_1", self._space.y)
        limits_2 = _limit(encoding, "kspace_encoding_step_2", self._space.z)
        shift_2 = self._space.z // 2 - limits_2[1] if self._space.z > 1 else 0
        self._shift = (self._space.y // 2 - limits_1[1], shift_2) if self._centred else (0, 0)
        locations = 1
        if not parameters.split_slices:
            limit = self._limits.slice
            locations = min(limit.maximum - limit.minimum + 1 if limit else 1, max(stats.slice) - min(stats.slice) + 1)
        extents = [self._extent(stats, name) for name in (parameters.N_dimension, parameters.S_dimension)]
        counts = [high - low + 1 for low, high in extents]
        self._lowest = [low for low, _ in extents]
        self._first_slice = min(stats.slice)
        shape = (line.number_of_samples, lines, partitions, line.active_channels, *counts, locations)
        self.data = np.zeros(shape, dtype=np.complex64, order="F")
        self.headers = np.empty((lines, partitions, *counts, locations), dtype=object)
        never_came = ismrmrd.AcquisitionHeader()  # as a real Gadgetron leaves it
        never_came.version = never_came.available_channels = never_came.active_channels = 1
        self.headers.fill(never_came)
        self._filled = np.zeros(self.headers.shape, dtype=bool)
        self._repeated = self._outside_matrix = 0
        self.sampling = self._sampling(encoding, line, limits_1, limits_2)

    @staticmethod
    def _extent(stats: Any, dimension: str) -> tuple[int, int]:
        """Lowest and highest counter of a dimension; of segments Gadgetron takes those of the averages."""
        if dimension in {"", "none"}:
            return 0, 0
        values = getattr(stats, "average" if dimension == "segment" else dimension)
        return min(values), max(values)

    def _sampling(
        self, encoding: Any, line: ismrmrd.Acquisition, limits_1: tuple[int, ...], limits_2: tuple[int, ...]
    ) -> SamplingDescription:
        sampling = SamplingDescription()
        for kind, space in (("encoded", encoding.encodedSpace), ("recon", encoding.reconSpace)):
            for axis, name in enumerate("xyz"):
                source = encoding.reconSpace if name == "x" else space  # the readout's oversampling is gone by now
                getattr(sampling, f"{kind}_FOV")[axis] = getattr(source.fieldOfView_mm, name)
                getattr(sampling, f"{kind}_matrix")[axis] = getattr(source.matrixSize, name)
        samples = line.number_of_samples
        limits = [(line.discard_pre, samples // 2, samples - line.discard_post - 1)]
        for axis, (low, centre, high) in enumerate((limits_1, limits_2), start=1):
            shift = self._shift[axis - 1]
            limits.append((low + shift, sampling.encoded_matrix[axis] // 2 if self._centred else centre, high + shift))
        for axis, (low, centre, high) in enumerate(limits):
            limit = sampling.sampling_limits[axis]
            limit.min, limit.center, limit.max = max(low, 0), centre, max(high, 0)
        return sampling

    def add(self, line: ismrmrd.Acquisition) -> None:
        samples, _, _, channels, n_count, s_count, locations = self.data.shape
        name = f"acquisition {line.scan_counter}"
        if line.active_channels != channels:
            raise ReconError(
                f"{name}: it has {line.active_channels} coils, the lines before it {channels}; mend the raw data"
            )
        points = line.number_of_samples - line.discard_pre - line.discard_post
        if line.number_of_samples == samples and (
            line.center_sample == samples // 2 or line.center_sample >= line.number_of_samples
        ):
            offset = line.discard_pre
        else:
            offset = self.sampling.sampling_limits[0].center - line.center_sample
        if offset < 0 or points < 0 or offset + points > samples:
            raise ReconError(
                f"{name}: its {points} samples (centre {line.center_sample}) do not fit a readout of {samples}; "
                "header and data disagree"
            )
        step_1, step_2 = int(line.idx.kspace_encode_step_1), int(line.idx.kspace_encode_step_2)
        e1 = step_1 + self._shift[0] - self._first[0]
        e2 = step_2 + self._shift[1] - self._first[1]
        if not (0 <= e1 < self.data.shape[1] and 0 <= e2 < self.data.shape[2]):
            self._outside(name, "kspace_encode_step_1", step_1, self._limits.kspace_encoding_step_1)
            self._outside(name, "kspace_encode_step_2", step_2, self._limits.kspace_encoding_step_2)
            self._outside_matrix += 1
            return
        n = _place(line, self._parameters.N_dimension, self._lowest[0], n_count)
        s = _place(line, self._parameters.S_dimension, self._lowest[1], s_count)
        location = 0 if self._parameters.split_slices else int(line.idx.slice) - self._first_slice
        if location >= locations:
            limit = self._limits.slice
            allowed = f"limits {limit.minimum}..{limit.maximum}" if limit else "one slice (it has no slice limits)"
            raise ReconError(
                f"{name}: slice {line.idx.slice} is outside the header's {allowed}; correct the header or set "
                "split_slices of BucketToBufferGadget"
            )
        place = (e1, e2, n, s, location)
        self._repeated += bool(self._filled[place])
        self._filled[place] = True
        source = line.data[:, line.discard_pre : line.discard_pre + points]
        self.data[offset : offset + points, e1, e2, :, n, s, location] = source.T
        self.headers[place] = line.getHead()

    @staticmethod
    def _outside(name: str, counter: str, value: int, limit: Any) -> None:
        if limit is None or not limit.minimum <= value <= limit.maximum:
            allowed = f"limits {limit.minimum}..{limit.maximum}" if limit else "matrix"
            raise ReconError(f"{name}: {counter} {value} is outside the header's {allowed}; header and data disagree")

    def buffer(self) -> ReconBuffer:
        if self._outside_matrix:
            log.warning(
                "BucketToBufferGadget: %d lines lie outside the encoded matrix and are left out; check the encoding "
                "limits' centre in the header",
                self._outside_matrix,
            )
        if self._repeated:
            log.warning(
                "BucketToBufferGadget: %d lines came more than once for one place and the last one was kept; choose "
                "N_dimension and S_dimension so that each has its own",
                self._repeated,
            )
        return ReconBuffer(self.data, None, None, self.headers, self.sampling)


def _place(line: ismrmrd.Acquisition, dimension: str, lowest: int, count: int) -> int:
    return min(max(_counter(line, dimension) - lowest, 0), count - 1)
