"""What older writers left out of headers, and what is used instead."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

AXES = "xyz"
STEPS = {"y": "kspace_encoding_step_1", "z": "kspace_encoding_step_2"}
GYROMAGNETIC_RATIO_HZ_PER_T = 42.577478518e6  # of protons
LARGEST_RATIO = 100.0  # of two fields of view, to derive a matrix from
PIXEL_MM = 1.0  # where a header says nothing of sizes

_Sizes = dict[str, float]  # of an axis; those that are not known are not in it


def add_defaults(header: Element, notes: list[str]) -> None:
    """Add what is missing and can be assumed or derived, with a note each.

    Parameters
    ----------
    header : of `header_schema.copied_by_schema`, changed in place
    notes : gets one line for each part that is added
    """
    measurement = header.find("measurementInformation")
    if measurement is not None:
        _default(measurement, "measurementInformation", "patientPosition", "HFS", notes)
    _frequency(header, notes)
    for number, encoding in enumerate(header.findall("encoding")):
        path = f"encoding {number}"
        if encoding.find("trajectoryDescription") is None:
            _default(encoding, path, "trajectory", "cartesian", notes)
        _spaces(encoding, path, notes)
        _limits(encoding, path, notes)
        parallel = encoding.find("parallelImaging")
        if parallel is not None:
            factors = _part(parallel, "accelerationFactor")
            for step in STEPS.values():
                _default(factors, f"{path}/parallelImaging/accelerationFactor", step, "1", notes)


def _default(parent: Element, path: str, name: str, text: str, notes: list[str]) -> None:
    if parent.find(name) is None:
        SubElement(parent, name).text = text
        notes.append(f"header: {path}/{name} is missing; {text} is assumed")


def _part(parent: Element, name: str) -> Element:
    """A part of an element, which is added when it is missing."""
    found = parent.find(name)
    return SubElement(parent, name) if found is None else found


def _frequency(header: Element, notes: list[str]) -> None:
    conditions = _part(header, "experimentalConditions")
    if conditions.find("H1resonanceFrequency_Hz") is not None:
        return
    field = float(header.findtext("acquisitionSystemInformation/systemFieldStrength_T") or 0)
    frequency = round(field * GYROMAGNETIC_RATIO_HZ_PER_T)
    SubElement(conditions, "H1resonanceFrequency_Hz").text = str(frequency)
    used = f"{frequency / 1e6:.1f} MHz, by the field strength, is assumed" if frequency else "it stays open"
    notes.append(f"header: experimentalConditions/H1resonanceFrequency_Hz is missing; {used}")


def _limits(encoding: Element, path: str, notes: list[str]) -> None:
    """Complete the limits of counters; one without a maximum says nothing and is taken out."""
    if encoding.find("encodingLimits") is None:
        notes.append(f"header: {path}/encodingLimits is missing; the k-space centre is assumed in the matrix's middle")
    limits = _part(encoding, "encodingLimits")
    for limit in list(limits):
        own_path = f"{path}/encodingLimits/{limit.tag}"
        if limit.find("maximum") is None:
            limits.remove(limit)
            notes.append(f"header: {own_path}/maximum is missing; the limits are not used")
            continue
        if limit.find("minimum") is None:
            SubElement(limit, "minimum").text = "0"
        if limit.find("center") is not None:
            continue
        low, high = (int(limit.findtext(name) or 0) for name in ("minimum", "maximum"))
        axis = next((axis for axis, step in STEPS.items() if step == limit.tag), "")
        if not axis:
            SubElement(limit, "center").text = str(low)  # nothing uses it
            continue
        middle = int(encoding.findtext(f"encodedSpace/matrixSize/{axis}") or 0) // 2
        _default(limit, own_path, "center", str(middle if low <= middle <= high else (low + high + 1) // 2), notes)


def _spaces(encoding: Element, path: str, notes: list[str]) -> None:
    """Complete matrix and field of view of both spaces, each from the other one."""
    names = [name for name in ("encodedSpace", "reconSpace") if encoding.find(name) is not None]
    if not names:
        return
    encoded, recon = _part(encoding, "encodedSpace"), _part(encoding, "reconSpace")
    known = {
        (space.tag, kind): _sizes(space, kind)
        for space in (encoded, recon)
        for kind in ("matrixSize", "fieldOfView_mm")
    }
    missing = {key: [axis for axis in AXES if axis not in sizes] for key, sizes in known.items()}
    assumed = ""
    for axis in AXES:
        assumed = _complete_axis(axis, *(known[key] for key in sorted(known))) or assumed
    lacking = []
    for (name, kind), axes in missing.items():
        part = _part(_part(encoding, name), kind)
        for axis in [axis for axis in axes if axis in known[name, kind]]:
            for old in part.findall(axis):
                part.remove(old)
            SubElement(part, axis).text = f"{known[name, kind][axis]:.9g}"
        if axes and name in names:
            lacking.append(f"{path}/{name}/{kind}" + (f"/{','.join(axes)}" if len(axes) < len(AXES) else ""))
    lacking += [f"{path}/{name}" for name in ("encodedSpace", "reconSpace") if name not in names]
    if lacking:
        notes.append(
            f"header: {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing or 0; "
            + (assumed or "the other values of the encoding give it")
        )


def _sizes(space: Element, kind: str) -> _Sizes:
    """The sizes of a space that are known. 0 says that one is not; of a matrix in the plane it is an error."""
    values = {axis: space.findtext(f"{kind}/{axis}") for axis in AXES}
    in_plane = "xy" if kind == "matrixSize" else ""
    return {axis: float(text) for axis, text in values.items() if text and (float(text) or axis in in_plane)}


def _complete_axis(axis: str, encoded_mm: _Sizes, encoded: _Sizes, recon_mm: _Sizes, recon: _Sizes) -> str:
    """Fill in the sizes of one axis that are not known; a text when they had to be assumed.

    A reconstruction keeps the size of pixels where its matrix is the smaller one (oversampling is cut off) and the
    field of view where it is the larger one (pixels are interpolated).
    """
    text = ""
    if axis not in encoded and axis not in recon:
        if axis != "z":
            return text
        encoded[axis] = recon[axis] = 1
    if axis not in encoded_mm and axis not in recon_mm:
        recon_mm[axis] = max(recon.get(axis, 0) or encoded[axis], 1) * PIXEL_MM
        text = f"a field of view of {PIXEL_MM:g} mm a pixel is assumed, and distances in the images are not true"
    known = axis in encoded_mm and axis in recon_mm and min(encoded_mm[axis], recon_mm[axis]) > 0
    ratio = encoded_mm[axis] / recon_mm[axis] if known else 1
    if not 1 / LARGEST_RATIO < ratio < LARGEST_RATIO:
        return text
    recon.setdefault(axis, max(round(encoded.get(axis, 1) / ratio), 1))
    encoded.setdefault(axis, max(round(recon[axis] * ratio), 1))
    oversampling = max(encoded[axis] / recon[axis], 1) if recon[axis] else 1
    recon_mm.setdefault(axis, encoded_mm.get(axis, 0) / oversampling)
    encoded_mm.setdefault(axis, recon_mm[axis] * oversampling)
    return text
