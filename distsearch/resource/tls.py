"""The certificates of a search: one authority, made for the run, and a key for each party.

A Dask port is a shell for everybody who can reach it, so both sides of every connection must show a
certificate of this authority. Keys stay in memory, and travel only through SSH's standard input.
(A process that loads its key writes it to a private folder for an instant, as `ssl` wants files.)
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# Clocks differ, by years where a machine's clock stops without power. A certificate is of no use
# once the authority's key is gone, with the end of the search; so dates need not limit it.
BEGIN, END = datetime(1950, 1, 1), datetime(9999, 12, 31, 23, 59, 59)


class Authority:
    """Signs the certificates of one search; its key is in memory only, as long as the search.

        authority = Authority()
        Scheduler(protocol="tls", security=Security(**authority.issue("driver")), ...)

    A certificate is valid whatever a clock shows.
    """

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name("distsearch")
        limits = x509.BasicConstraints(ca=True, path_length=0)
        self._pem = self._sign(self._name, self._key.public_key(), limits)

    def issue(self, party: str) -> dict[str, Any]:
        """Make a key and a certificate for a party: the parameters of Dask's `Security`.

        A process with these shows this certificate, and demands one of this authority.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        limits = x509.BasicConstraints(ca=False, path_length=None)
        certificate = self._sign(_common_name(party), key.public_key(), limits)
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        roles = ("scheduler", "worker", "client")
        return {
            "require_encryption": True,
            "tls_ca_file": self._pem,
            **{f"tls_{role}_cert": certificate for role in roles},
            **{f"tls_{role}_key": secret for role in roles},
        }

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, limits: x509.BasicConstraints
    ) -> str:
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(BEGIN)
            .not_valid_after(END)
            .add_extension(limits, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
