"""Gadgetron's storage server, played by an HTTP server that answers as mrd-storage-server does."""

from __future__ import annotations

import threading
import urllib.parse

import ismrmrd
import numpy as np
import pytest

from gadgets.noise.storage import stored_noise
from gadgets.stream import ReconError
from tests.gadgets.noise.covariances import TAGS, blob, covariance_blob, storage
from tests.noise_scans import header


def scan(**changes):
    return ismrmrd.xsd.CreateFromDocument(header(depends_on="1_2_3_1", **changes).encode())


def test_the_noise_that_the_header_names():
    with storage(blob(covariance_blob(np.eye(2) * 2))) as (address, requests):
        noise = stored_noise(address, scan())
    assert requests[0].path == "/v1/blobs/data/latest"
    np.testing.assert_array_equal(noise.covariance, np.eye(2) * 2)
    assert (noise.dwell_us, noise.measurement, noise.moment.year) == (20.0, "1_2_3_1", 2021)


def test_the_last_part_of_an_id_as_older_converters_write_it():
    older = scan()
    older.measurementInformation.measurementDependency[0].measurementID = "1"
    with storage(blob(covariance_blob(np.eye(2)))) as (address, requests):
        assert stored_noise(address, older).measurement == "1_2_3_1"
    assert len(requests) == 2


def test_no_noise():
    with storage(blob(b"")) as (address, requests):
        assert stored_noise(address, scan(measurement_id="9_2_8_4")) is None  # another device and study
        assert stored_noise(address, ismrmrd.xsd.CreateFromDocument(header().encode())) is None  # it names none
    assert len(requests) == 1


def test_patient_and_device_of_the_id_where_the_header_names_no_patient():
    tags = {**TAGS, "subject": "2"}
    with storage(lambda handler: handler.send_error(404)) as (address, requests):
        stored_noise(address, scan(identity=False))
        stored_noise(address, scan(identity=False, measurement_id=None))
    assert [dict(urllib.parse.parse_qsl(one.query)) for one in requests] == [tags, tags]


def drip(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(100):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        threading.Event().wait(0.05)


def empty_promise(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"SFNDAM")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (drip, "it does not answer in time"),
        (lambda handler: threading.Event().wait(2), "it does not answer in time"),
        (empty_promise, "no noise covariance"),
        (lambda handler: handler.wfile.write(b"SSH-2.0\r\n"), "this is no HTTP"),
        (lambda handler: handler.send_error(500), "HTTP status 500"),
        (blob(b"<html>"), "no noise covariance"),
    ],
    ids=["drips", "silent", "cut off", "no HTTP", "error", "no covariance"],
)
def test_a_server_that_fails_is_an_error_in_time(answer, text):
    with storage(answer) as (address, _), pytest.raises(ReconError, match=text) as error:
        stored_noise(address, scan(), timeout_s=0.4)
    assert "P1" not in str(error.value) and "1_2_3" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "text"),
    [("http://127.0.0.1:1", "no answer"), ("127.0.0.1:9112", "no address"), ("http://[x", "no address")],
)
def test_no_server(address, text):
    with pytest.raises(ReconError, match=text):
        stored_noise(address, scan())
