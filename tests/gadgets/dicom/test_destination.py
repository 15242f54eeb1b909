"""Addresses of a PACS, and TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from gadgets.dicom.sender import Sender
from gadgets.dicom_output import DicomOutput
from gadgets.stream import ReconError
from tests.gadgets.dicom.dicom_images import make_header
from tests.gadgets.dicom.pacs_servers import Scp, Stow
from tests.gadgets.dicom.spool_files import QUICK, UIDS, exhaust, fill, messages, waiting


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"pacs": "pacs.example:104"}, r"'pacs' is .*; it must be dicom://AE@host:port"),
        ({"pacs": "dicom://PACS@host"}, "'pacs' .* AE title and port"),
        ({"pacs": "dicom://host:104"}, "'pacs' .*AE title has 1 to 16"),
        ({"pacs": "dicom://PACS@host:none"}, "'pacs' .*no address"),
        ({"pacs": "dicom://PACS@host:99999"}, "'pacs' .*no address"),
        ({"pacs": "dicom://ABCDEFGHIJKLMNOPQ@host:104"}, "'pacs' .*1 to 16"),
        ({"pacs": "https://user:secret@host/dicom-web"}, "'pacs' holds a user name or password"),
        ({"pacs": "https://host/dicom-web?key=1"}, "'pacs' is"),
        ({"pacs": "dicom://P@h:104", "calling_ae": ""}, "'calling_ae'"),
        ({"pacs": "dicom://P@h:104", "spool": " "}, "'spool' is empty"),
        ({"pacs": "dicom://P@h:104", "ca_file": "ca.pem"}, "'ca_file' .* needs TLS.*dicom-tls://"),
        ({"pacs": "http://h/d", "token_file": "token"}, "'token_file' .* needs TLS.*https://"),
        ({"pacs": "https://h/d", "token_file": "/nowhere"}, "'token_file' .*No such file"),
        ({"pacs": "dicom-tls://P@h:104", "token_file": "x"}, "'token_file' .*STOW-RS"),
        ({"pacs": "dicom-tls://P@h:104", "ca_file": "/nowhere"}, "'ca_file' .*No such file"),
        ({"pacs": "dicom-tls://P@h:104", "certificate_file": "/nowhere"}, "'certificate_file' .*No such file"),
        ({"pacs": "dicom-tls://P@h:104", "key_file": "/nowhere"}, "'key_file' .*certificate"),
        ({"pacs": "dicom://P@h:104", "pacs_timeout_s": "0"}, "'pacs_timeout_s'"),
        ({"pacs": "dicom://P@h:104", "pacs_wait_s": "-1"}, "'pacs_wait_s'"),
    ],
)
def test_bad_properties_are_one_line(properties: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ReconError, match=f"^gadget DicomOutput: property {message}") as error:
        DicomOutput().configure(make_header(), {"spool": str(tmp_path / "spool"), **properties})
    assert "\n" not in str(error.value) and "secret" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """A server's TLS settings; it asks for no client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def ca_file(authority: trustme.CA, folder: Path) -> str:
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return str(folder / "ca.pem")


def tls_url(scp: Scp, host: str = "localhost") -> str:
    return f"dicom-tls://PACS@{host}:{scp.port}"


def test_tls_with_a_known_authority(authority: trustme.CA, tls: ssl.SSLContext, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc.def\n")
    options = {"ca_file": ca_file(authority, tmp_path)}
    with Scp(ssl_context=tls) as scp, Stow(context=tls) as stow:
        assert Sender(fill(tmp_path / "spool", tls_url(scp), **options)).attempt() is None
        options["token_file"] = str(tmp_path / "token")
        assert Sender(fill(tmp_path / "spool", stow.url, **options)).attempt() is None
    assert scp.received == stow.received == UIDS and stow.authorizations == {"Bearer abc.def"}
    assert "abc.def" not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))


@pytest.mark.parametrize("wrong", ["authority", "none", "host"])
def test_tls_with_a_wrong_certificate_is_refused(
    wrong: str, authority: trustme.CA, tls: ssl.SSLContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {} if wrong == "none" else {"ca_file": ca_file(authority if wrong == "host" else trustme.CA(), tmp_path)}
    host = "127.0.0.1" if wrong == "host" else "localhost"
    with Scp(ssl_context=tls) as scp, Stow(context=tls) as stow:
        for url in (tls_url(scp, host), stow.url.replace("localhost", host)):
            folder = fill(tmp_path / "spool", url, **options)
            assert Sender(folder, QUICK).attempt() is not None and waiting(folder) == 3
    assert not scp.received and not stow.received
    refused = ("certificate verify failed", "doesn't match 'localhost'")  # of OpenSSL, and of urllib3 before 2
    assert [any(text in line for text in refused) for line in messages(caplog)] == [True, True]


def test_tls_with_a_client_certificate(authority: trustme.CA, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    client = authority.issue_cert("scanner.example")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    options = {"ca_file": ca_file(authority, tmp_path)}
    with Scp(ssl_context=context) as scp, Stow(context=context) as stow:
        for url in (tls_url(scp), stow.url):
            folder = fill(tmp_path / "spool", url, **options)
            assert Sender(folder, QUICK).attempt() is not None and waiting(folder) == 3
            fill(tmp_path / "spool", url, certificate_file=str(tmp_path / "client.pem"), **options)
            exhaust(Sender(folder, QUICK))
    assert sorted(scp.received) == sorted(stow.received) == sorted(UIDS)


def test_a_plain_port_is_not_spoken_to_in_the_clear(scp: Scp, authority: trustme.CA, tmp_path: Path) -> None:
    folder = fill(tmp_path / "spool", tls_url(scp), ca_file=ca_file(authority, tmp_path), timeout_s=0.5)
    assert Sender(folder, QUICK).attempt() is not None
    assert not scp.associations and waiting(folder) == 3
