"""A certificate authority of our own, and a server certificate for 127.0.0.1 and localhost."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from .components import program

_CONFIG = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = ratelimitd tests
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = IP:127.0.0.1, DNS:localhost
"""


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files, as PEM."""

    ca: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path, *, identified: bool = True) -> Certificates:
    """Make a CA and a server certificate, valid for two days; not `identified`: without key identifiers, as MySQL's."""
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    config, ca_key, request = folder / "openssl.cnf", folder / "ca.key", folder / "server.csr"
    text = _CONFIG
    if not identified:  # openssl adds them unless it is told not to
        text = text.replace("= hash", "= none").replace("= keyid", "= none")
    config.write_text(text)
    new: list[str | Path] = [
        "req",
        "-config",
        config,
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    authority: list[str | Path] = ["-CA", made.ca, "-CAkey", ca_key, "-CAcreateserial"]
    extensions: list[str | Path] = ["-extfile", config, "-extensions", "server"]
    for command in (
        [*new, "-x509", "-extensions", "ca", "-days", "2", "-keyout", ca_key, "-out", made.ca],
        [*new, "-subj", "/CN=127.0.0.1", "-keyout", made.key, "-out", request],
        ["x509", "-req", "-in", request, *authority, *extensions, "-days", "2", "-out", made.certificate],
    ):
        subprocess.run([program("openssl"), *command], check=True, capture_output=True)
    return made
