"""The server's own certificate authority, certificate and token, made at the first start.

`python -m fairlead.local.apiserver.certificates DIRECTORY` makes them: a process of its own, since the cryptography library
would otherwise stay in the server's memory for good.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FILES = ("ca.crt", "server.crt", "server.key", "token")
SETBACK = datetime.timedelta(days=1)
"""How far this machine's clock may be set back before nobody believes a certificate any more."""
LIFETIME = datetime.timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the server is and who may speak to it."""

    authority: Path
    certificate: Path
    key: Path
    token: str


def identity(directory: Path) -> Identity:
    """The identity in `directory`, made if it is not there."""
    if not all((directory / name).exists() for name in FILES):
        subprocess.run([sys.executable, "-m", __name__, str(directory)], check=True)
    token = (directory / "token").read_text().strip()
    return Identity(directory / "ca.crt", directory / "server.crt", directory / "server.key", token)


def write_private(path: Path, content: bytes | str) -> None:
    """Write a file that only its owner can read, in one step."""
    staged = path.with_name(path.name + ".new")
    staged.unlink(missing_ok=True)
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    staged.replace(path)


def make(directory: Path) -> None:
    """Write FILES. The authority's key is not kept: one certificate is all it ever signs."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    # Unique names: two authorities of the same name confuse clients that trust both.
    ca_name = name(f"fairlead-{secrets.token_hex(4)}")

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        begun = x509.CertificateBuilder().subject_name(subject).issuer_name(ca_name).public_key(public)
        begun = begun.serial_number(x509.random_serial_number()).not_valid_before(now - SETBACK)
        return begun.not_valid_after(now + LIFETIME)

    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    ca = builder(ca_name, ca_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    ca = ca.add_extension(usage, critical=True)
    ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
    names = [
        x509.DNSName("localhost"),
        x509.DNSName("kubernetes.default.svc"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    server = builder(name("fairlead-apiserver"), key.public_key())
    server = server.add_extension(x509.SubjectAlternativeName(names), critical=False)
    server = server.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    server = server.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    server = server.add_extension(authority, critical=False)

    pem = serialization.Encoding.PEM
    encoded = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(directory / "server.key", encoded)
    write_private(directory / "server.crt", server.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    write_private(directory / "ca.crt", ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    write_private(directory / "token", secrets.token_urlsafe(32))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
