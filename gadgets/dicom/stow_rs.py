"""STOW-RS, the DICOMweb way to store."""

from __future__ import annotations

import contextlib
import re
import ssl
from pathlib import Path
from typing import Any, TypeGuard, cast

from pydicom import Dataset, dcmread

from gadgets.dicom.answers import REFUSED_HTTP_CODES, Answer, PacsError, answer_of
from gadgets.dicom.destination import Destination


def _without_charset(response: Any, *_: Any, **__: Any) -> Any:
    """dicomweb-client knows media types without parameters only."""
    media_type = response.headers.get("Content-Type", "")
    response.headers["Content-Type"] = media_type.partition(";")[0].strip().lower()
    return response


class StowRs:
    """Stores instances by DICOMweb (PS3.18 Section 10.5), one a request."""

    def __init__(self, destination: Destination) -> None:
        import requests
        from dicomweb_client import DICOMwebClient

        destination.tls_context()  # an error names the file that is wrong
        session = requests.Session()
        session.trust_env = False  # neither a netrc's password nor another certificate file instead of what is set
        paths = ssl.get_default_verify_paths()
        session.verify = destination.ca_file or paths.cafile or paths.capath or True
        if destination.certificate_file:
            session.cert = (destination.certificate_file, destination.key_file or destination.certificate_file)
        headers = {"Accept": "application/dicom+json"}
        if token := destination.token():
            headers["Authorization"] = f"Bearer {token}"
        self._session = session
        self._client = DICOMwebClient(
            destination.pacs.rstrip("/"),
            session=session,
            headers=headers,
            callback=_without_charset,
            timeout=destination.timeout_s,
        )
        self._client.set_http_retry_params(retry=False)  # the spool does that

    def store(self, path: Path) -> Answer:
        """Send a file; see `PacsConnection`."""
        import requests

        dataset = dcmread(path)
        uid = dataset.SOPInstanceUID
        code = 200
        try:
            response = self._client.store_instances([dataset])
        except requests.HTTPError as error:
            answer, response = cast(requests.Response, error.response), Dataset()
            code = answer.status_code
            if "json" in answer.headers["Content-Type"]:
                with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # the HTTP code counts
                    response = Dataset.from_json(answer.json())
        except requests.RequestException as error:
            raise PacsError(f"it cannot be reached ({_cause(error)})") from None
        except (ValueError, TypeError, KeyError, AttributeError, SyntaxError) as error:
            raise PacsError(f"its answer cannot be read ({type(error).__name__})") from None
        for item in response.get("FailedSOPSequence") or []:
            if item.get("ReferencedSOPInstanceUID") == uid:
                return answer_of(int(item.get("FailureReason") or 0x0110))
        for item in response.get("ReferencedSOPSequence") or []:
            if item.get("ReferencedSOPInstanceUID") == uid and code < 400:
                return answer_of(int(item.get("WarningReason") or 0))
        if code in REFUSED_HTTP_CODES:
            return Answer(False, f"HTTP {code}")
        raise PacsError(f"it answers HTTP {code}" if code >= 400 else "its answer does not name the instance")

    def close(self) -> None:
        """Close the HTTP connections."""
        self._session.close()


def _cause(error: BaseException) -> str:
    """The innermost cause of an error of requests, whose own text repeats the whole request."""
    while inner := next((one for one in (getattr(error, "reason", None), *error.args) if _is_error(one)), None):
        error = inner
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    text = re.sub(r"^<[^>]*>: |^HTTPS?Connection\w*\([^)]*\): ", "", text)
    return text or type(error).__name__


def _is_error(value: Any) -> TypeGuard[BaseException]:
    return isinstance(value, BaseException)
