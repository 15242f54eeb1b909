"""A PACS and how to reach it."""

from __future__ import annotations

import functools
import json
import math
import re
import ssl
import urllib.parse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from gadgets.stream import ReconError, reason_of
from priors.extras import require

TLS_SCHEMES = ("dicom-tls", "https")


@dataclass(frozen=True)
class Destination:
    """A PACS, how to reach it, and what becomes of delivered files.

    Parameters
    ----------
    pacs : dicom://AE@host:port, dicom-tls://AE@host:port (C-STORE), or the DICOMweb root https://host/path (STOW-RS)
    calling_ae : application entity title of this side
    ca_file : PEM file with the certificates that the PACS's is checked by; empty: those of the system
    certificate_file, key_file : PEM files of a client certificate and its key, for a PACS that asks for one
    token_file : file with a bearer token for STOW-RS, read anew at every connection
    timeout_s : seconds of silence after which a connection is given up
    keep_delivered : move delivered files to a folder `delivered` instead of removing them

    Raises
    ------
    ReconError
        A value is wrong; one line that names the property.
    """

    pacs: str
    calling_ae: str = "GENRECON"
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    token_file: str = ""
    timeout_s: float = 60.0
    keep_delivered: bool = False

    def __post_init__(self) -> None:
        try:
            scheme, host, port, password = self._url.scheme, self._url.hostname, self._url.port, self._url.password
        except ValueError as error:  # a port that is no number
            raise _wrong("pacs", self.pacs, f"it is no address ({error})") from None
        web = scheme in {"http", "https"}
        if password is not None or (web and self._url.username is not None):
            raise ReconError(
                "gadget DicomOutput: property 'pacs' holds a user name or password; leave it out and name a file "
                "with a token in 'token_file'"
            )
        if not host or not (web or scheme in {"dicom", "dicom-tls"}) or self._url.query or self._url.fragment:
            raise _wrong(
                "pacs", self.pacs, "it must be dicom://AE@host:port, dicom-tls://AE@host:port or https://host/path"
            )
        if not web:
            if not port or self._url.path.strip("/"):
                raise _wrong("pacs", self.pacs, f"it must name AE title and port: {scheme}://AE@host:port")
            _check_ae("pacs", self.called_ae)
        _check_ae("calling_ae", self.calling_ae)
        if scheme not in TLS_SCHEMES:
            for name in ("ca_file", "certificate_file", "key_file", "token_file"):
                if getattr(self, name):
                    raise _wrong(
                        name, getattr(self, name), f"it needs TLS; {scheme}:// has none, use {_secure(scheme)}"
                    )
        if self.token_file and not web:
            raise _wrong("token_file", self.token_file, "tokens are for STOW-RS; leave it empty")
        if self.key_file and not self.certificate_file:
            raise _wrong("key_file", self.key_file, "name the certificate it belongs to in 'certificate_file'")
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise _wrong("pacs_timeout_s", str(self.timeout_s), "it must be a number above 0")
        require(*(("requests", "dicomweb_client") if web else ("pynetdicom",)))  # before a scan waits for it

    @functools.cached_property
    def _url(self) -> urllib.parse.SplitResult:
        return urllib.parse.urlsplit(self.pacs)

    @property
    def is_web(self) -> bool:
        """Whether files go by STOW-RS."""
        return self._url.scheme in {"http", "https"}

    @property
    def called_ae(self) -> str:
        """Application entity title of the PACS."""
        return urllib.parse.unquote(self._url.username or "")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of a PACS that is reached by C-STORE."""
        return cast(str, self._url.hostname), cast(int, self._url.port)

    def tls_context(self) -> ssl.SSLContext | None:
        """Settings of the TLS connection, None without TLS. Raises ReconError when a file cannot be used."""
        if self._url.scheme not in TLS_SCHEMES:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise _wrong("ca_file", self.ca_file, f"it cannot be used ({reason_of(error)}); name a PEM file") from None
        if self.certificate_file:
            try:
                context.load_cert_chain(self.certificate_file, self.key_file or None, password="")
            except (OSError, ValueError) as error:
                raise _wrong(
                    "certificate_file",
                    self.certificate_file,
                    f"it and 'key_file' cannot be used ({reason_of(error)}); name PEM files, "
                    "the key without a password",
                ) from None
        return context

    def token(self) -> str:
        """The bearer token, empty without. Raises ReconError when its file cannot be read or holds no token."""
        if not self.token_file:
            return ""
        try:
            token = Path(self.token_file).read_text().strip()
        except (OSError, ValueError) as error:
            raise _wrong("token_file", self.token_file, f"it cannot be read ({reason_of(error)})") from None
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise _wrong("token_file", self.token_file, "it must hold one token, without blanks")
        return token

    def to_json(self) -> str:
        """The destination as text; `from_json` reads it."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Destination:
        """A destination from its text. Raises ReconError for a wrong value, ValueError or TypeError for other text."""
        return cls(**json.loads(text))


def _secure(scheme: str) -> str:
    return "https://" if scheme == "http" else "dicom-tls://"


def _check_ae(name: str, title: str) -> None:
    if not re.fullmatch(r"[\x20-\x5b\x5d-\x7e]{1,16}", title) or not title.strip():
        raise _wrong(
            name, title, "an AE title has 1 to 16 ASCII characters and no backslash, for instance dicom://AE@host:port"
        )


def _wrong(name: str, value: str, remedy: str) -> ReconError:
    return ReconError(f"gadget DicomOutput: property '{name}' is '{value}'; {remedy}")
