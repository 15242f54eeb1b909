"""Properties of the DICOM gadget."""

from __future__ import annotations

from dataclasses import dataclass

from gadgets.stream import parameter


@dataclass(frozen=True)
class DicomParameters:
    """Properties of `DicomOutput`, and the settings of `dicom_datasets` and `write_dicom`."""

    folder: str = parameter(
        "",
        "folder the series folders are made in, with modes 0700 and 0600; '~' is the home folder, a relative folder is "
        "below the working directory of the process that runs the gadget (on a server: the server's); 'none': no "
        "files, the images only pass on; it must be given unless there is a PACS, and may be empty with one: files are "
        "in the spool only then",
        local=True,
    )
    anonymize: bool = parameter(
        False,
        "write no patient, study, institution or device identity, no dates and no free text of header or images; "
        "UIDs are replaced, by the same ones at every replay",
        local=True,
    )
    salt: str = parameter(
        "",
        "secret text that anonymized UIDs and patient IDs are derived with; with it the scans of one patient "
        "keep one pseudonym, without it only those of one study do",
        local=True,
    )
    chain_digest: str = parameter(
        "",
        "what tells reconstructions of one scan by other settings apart, part of SeriesInstanceUID; empty: the digest "
        "that images bring from the reconstruction's process; genrecon replay and serve fill in the whole chain's",
    )
    series_description: str = parameter("", "SeriesDescription; empty: the header's, followed by the method")
    series_number_offset: int = parameter(
        1000,
        "SeriesNumber = 1000 x initialSeriesNumber + image_series_index + this, away from the scanner's own",
        minimum=0,
        maximum=1_000_000,
    )
    phase_rescale: str = parameter(
        "siemens",
        "what phase images hold: siemens: 12 bit, rescaled to -4096 to 4094 for -pi to pi, as Siemens and as tools "
        "for field maps expect; radians: rescaled to radians, in the steps that came",
        choices=("siemens", "radians"),
    )
    frames: str = parameter(
        "single",
        "single: a file an image (MR Image Storage); enhanced: a file a series (Enhanced MR Image Storage), at the end "
        "of the scan; until then pixels are in the folder for temporary files",
        choices=("single", "enhanced"),
    )
    creation_time: bool = parameter(
        True, "write InstanceCreationDate and -Time; false: a replay gives the same files byte for byte"
    )
    pacs: str = parameter(
        "",
        "PACS the files are sent to: dicom://AE@host:port (C-STORE), dicom-tls://AE@host:port (C-STORE over TLS) or "
        "the DICOMweb root https://host/path (STOW-RS); empty: none",
        local=True,
    )
    spool: str = parameter(
        "dicom-spool",
        "folder where files wait until the PACS confirmed them, for one user: modes 0700 and 0600; scans and processes "
        "may share one",
        local=True,
    )
    calling_ae: str = parameter("GENRECON", "AE title of this side, as the PACS knows it", local=True)
    ca_file: str = parameter(
        "", "PEM file of the certificates the PACS's is checked by, with TLS; empty: those of the system", local=True
    )
    certificate_file: str = parameter("", "PEM file of a client certificate, for a PACS that asks for one", local=True)
    key_file: str = parameter(
        "", "PEM file of the client certificate's key, where it is not in the same file", local=True
    )
    token_file: str = parameter("", "file with a bearer token for STOW-RS", local=True)
    deliver: bool = parameter(
        True, "send to the PACS; false: `genrecon deliver` or `genrecon serve` does that, from the spool", local=True
    )
    pacs_timeout_s: float = parameter(
        60.0, "seconds of silence after which an attempt is given up", minimum=1, maximum=3600, local=True
    )
    pacs_wait_s: float = parameter(
        2.0,
        "longest a scan's end waits for what is still being sent; the spool keeps the rest",
        minimum=0,
        maximum=600,
        local=True,
    )
    keep_delivered: bool = parameter(False, "move delivered files to a folder 'delivered' in the spool", local=True)
