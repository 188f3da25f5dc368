"""Certificates: who has none of this run's is turned away before anything is unpickled."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from distributed import Scheduler, Security
from distributed.core import rpc
from distributed.protocol.pickle import dumps

from distsearch.resource.tls import Authority


def stranger():
    """What a client without certificate has."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return {"ssl_context": context, "require_encryption": True}


def touch(canary, authority, connection_args):
    """Ask a scheduler to unpickle and run something that makes a file; whether it did."""

    async def ask():
        scheduler = Scheduler(
            host="127.0.0.1",
            port=0,
            protocol="tls",
            security=Security(**authority.issue("driver")),
            dashboard_address="127.0.0.1:0",
        )
        async with scheduler, rpc(scheduler.address, connection_args=connection_args) as remote:
            call = remote.run_function(function=dumps(partial(Path.touch, canary)))
            await asyncio.wait_for(call, 5)

    with contextlib.suppress(OSError):
        asyncio.run(ask())
    return canary.exists()


def test_a_party_of_the_run_is_let_in(tmp_path):
    authority = Authority()
    ours = Security(**authority.issue("gpu1")).get_connection_args("client")
    assert touch(tmp_path / "canary", authority, ours)


def test_a_client_without_certificate_is_turned_away_before_anything_is_unpickled(tmp_path):
    assert not touch(tmp_path / "canary", Authority(), stranger())


def test_a_certificate_of_another_run_is_turned_away(tmp_path):
    others = Security(**Authority().issue("gpu1")).get_connection_args("client")
    assert not touch(tmp_path / "canary", Authority(), others)


@pytest.fixture
def certificate():
    return x509.load_pem_x509_certificate(Authority().issue("gpu1")["tls_client_cert"].encode())


@pytest.mark.parametrize("year", [1970, 2013, 2060])
@pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL's command tells the time")
def test_a_clock_that_is_years_off_does_no_harm(tmp_path, year):
    party = Authority().issue("gpu1")
    (tmp_path / "authority").write_text(party["tls_ca_file"])
    (tmp_path / "own").write_text(party["tls_client_cert"])
    clock = str(int(datetime(year, 1, 1, tzinfo=timezone.utc).timestamp()) + 10)
    verify = ["openssl", "verify", "-attime", clock, "-CAfile", "authority", "own"]
    said = subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr


def test_a_party_cannot_make_certificates_for_others(certificate):
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_every_party_has_a_key_of_its_own():
    authority = Authority()
    one, two = authority.issue("gpu1"), authority.issue("gpu1")
    assert one["tls_ca_file"] == two["tls_ca_file"]
    assert one["tls_worker_key"] != two["tls_worker_key"]


def test_keys_are_elliptic_and_certificates_name_their_party(certificate):
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert certificate.subject.rfc4514_string() == "CN=gpu1"
