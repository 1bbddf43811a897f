"""Servers know each other: who is of the same environment is let in, and nobody else. The handshakes are real."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from monitoring.certificates import RENEW, VALID, Identity, is_good, issue

NOW = datetime.now(UTC).replace(microsecond=0)
HERE, THERE = "127.0.0.1", "127.0.0.2"


@pytest.fixture(scope="module")
def ours() -> Mapping[str, Identity]:
    return issue([HERE, THERE, "fd00::2"], NOW)


def context(purpose: int, who: Identity, folder: Path) -> ssl.SSLContext:
    """Return what shows an identity and believes its CA only."""
    pem = folder / f"{purpose}.pem"
    pem.write_text(who.key + who.certificate)
    found = ssl.SSLContext(purpose)
    found.load_cert_chain(pem)
    found.load_verify_locations(cadata=who.ca)
    found.verify_mode = ssl.CERT_REQUIRED
    return found


def shake(server: Identity, client: ssl.SSLContext, folder: Path, asked: str = HERE) -> bytes:
    """Return what a server sends to a client that it lets in. Raises ssl.SSLError or ConnectionError on the side of the client."""
    with socket.create_server((HERE, 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, context(ssl.PROTOCOL_TLS_SERVER, server, folder)))
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname(), 5) as line,
                client.wrap_socket(line, server_hostname=asked) as safe,
            ):
                return safe.recv(9)
        finally:
            thread.join()


def _serve(listener: socket.socket, safe: ssl.SSLContext) -> None:
    line, _ = listener.accept()
    line.settimeout(5)
    try:
        with line, safe.wrap_socket(line, server_side=True) as connection:
            connection.sendall(b"figures")
    except (ssl.SSLError, ConnectionError):
        pass  # the client says why


def test_two_servers_of_an_environment_believe_each_other(ours: Mapping[str, Identity], tmp_path: Path) -> None:
    client = context(ssl.PROTOCOL_TLS_CLIENT, ours[THERE], tmp_path)
    assert shake(ours[HERE], client, tmp_path) == b"figures"


def test_a_client_of_another_environment_is_not_let_in(ours: Mapping[str, Identity], tmp_path: Path) -> None:
    stranger = context(ssl.PROTOCOL_TLS_CLIENT, issue([THERE], NOW)[THERE], tmp_path)
    stranger.load_verify_locations(cadata=ours[HERE].ca)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake(ours[HERE], stranger, tmp_path)


def test_a_client_without_a_certificate_is_not_let_in(ours: Mapping[str, Identity], tmp_path: Path) -> None:
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.load_verify_locations(cadata=ours[HERE].ca)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake(ours[HERE], nobody, tmp_path)


def test_a_server_of_another_environment_is_not_believed(ours: Mapping[str, Identity], tmp_path: Path) -> None:
    client = context(ssl.PROTOCOL_TLS_CLIENT, ours[THERE], tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(issue([HERE], NOW)[HERE], client, tmp_path)


def test_nor_is_one_of_ours_that_answers_for_another(ours: Mapping[str, Identity], tmp_path: Path) -> None:
    client = context(ssl.PROTOCOL_TLS_CLIENT, ours[THERE], tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake(ours[HERE], client, tmp_path, asked=THERE)


def test_no_server_can_make_certificates(ours: Mapping[str, Identity]) -> None:
    """The CA's key is nowhere: each server has a key of its own that is not the CA's."""
    keys = [x509.load_pem_x509_certificate(one.encode()).public_key() for one in {who.ca for who in ours.values()}]
    own = [x509.load_pem_x509_certificate(who.certificate.encode()) for who in ours.values()]
    assert len({who.key for who in ours.values()}) == 3
    assert not {key.public_numbers() for key in keys} & {one.public_key().public_numbers() for one in own}  # type: ignore[union-attr]
    assert not [one for one in own if "basicConstraints" in str(one.extensions)]


def is_good_at(one: Identity, address: str, now: datetime = NOW) -> bool:
    return is_good(one.certificate, one.ca, address, now)


def test_a_certificate_is_of_its_own_address_only(ours: Mapping[str, Identity]) -> None:
    assert is_good_at(ours["fd00::2"], "FD00:0:0::2")
    assert not is_good_at(ours["fd00::2"], HERE)


def test_a_certificate_is_good_only_beside_the_ca_that_issued_it(ours: Mapping[str, Identity]) -> None:
    other = issue([HERE], NOW)[HERE]
    assert is_good_at(other, HERE)
    assert not is_good(ours[HERE].certificate, other.ca, HERE, NOW)
    assert not is_good(ours[HERE].certificate, other.certificate, HERE, NOW)


def test_a_certificate_is_good_until_its_last_year_begins(ours: Mapping[str, Identity]) -> None:
    last = NOW + VALID - RENEW
    assert is_good_at(ours[HERE], HERE, last - timedelta(seconds=1))
    assert not is_good_at(ours[HERE], HERE, last)


def test_certificates_are_good_for_longer_than_it_takes_to_renew_them_and_for_clocks_that_are_behind(
    ours: Mapping[str, Identity],
) -> None:
    certificate, ca = (x509.load_pem_x509_certificate(text.encode()) for text in (ours[HERE].certificate, ours[HERE].ca))
    assert certificate.not_valid_after_utc == ca.not_valid_after_utc == NOW + VALID
    assert timedelta(days=365) == RENEW < VALID - RENEW
    assert certificate.not_valid_before_utc < NOW


@pytest.mark.parametrize("broken", ["", "not a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_not_good(ours: Mapping[str, Identity], broken: str) -> None:
    assert not is_good(broken, ours[HERE].ca, HERE, NOW)
    assert not is_good(ours[HERE].certificate, broken, HERE, NOW)
