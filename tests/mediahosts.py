"""Hosts on a small internet with media to fetch: TLS on loopback, with a certificate authority and names of their own.

What is fetched from there passes every check of the server under test: its process sees public addresses (see
`internet/sitecustomize.py`), trusts the authority by OpenSSL's own SSL_CERT_FILE, and needs each name on its list.
"""

import contextlib
import datetime
import http.server
import json
import os
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509  # comes with MLflow
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

MEDIA, STORE, IMPOSTOR, INSIDE = "media.example", "store.example", "impostor.example", "inside.example"
ADDRESSES = {MEDIA: "93.184.215.14", STORE: "93.184.215.15", IMPOSTOR: "93.184.215.16", INSIDE: "10.1.2.3"}
"""What the names stand for; the last is no public address, and a port answers behind it all the same."""
CERTIFIED = (MEDIA, STORE, INSIDE)
"""Names that the certificate holds."""
_ANSWER_S = 30


@dataclass
class MediaHosts:
    """What the hosts hold, and what they were asked."""

    variables: dict[str, str]
    """Environment of a process that is to see them."""
    files: dict[str, bytes] = field(default_factory=dict)
    """By host and path: "media.example/clip.mp4"."""
    leads: dict[str, str] = field(default_factory=dict)
    """Redirects, by host and path."""
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def media_hosts(folder: Path) -> Iterator[MediaHosts]:
    """The running hosts."""
    hosts = MediaHosts(variables={})

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = _ANSWER_S

        def do_GET(self) -> None:
            name = f"{self.headers['Host']}{self.path}"
            hosts.asked.append(name)
            data = hosts.files.get(name, b"")
            self.send_response(302 if name in hosts.leads else 200 if data else 404)
            if name in hosts.leads:
                self.send_header("Location", hosts.leads[name])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_certificate(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        hosts.variables = {
            "SSL_CERT_FILE": str(folder / "authority.pem"),
            "TEST_INTERNET_NAMES": json.dumps(ADDRESSES),
            "TEST_INTERNET_PORTS": json.dumps(dict.fromkeys(ADDRESSES.values(), server.server_port)),
            "PYTHONPATH": os.pathsep.join(p for p in (str(internet()), os.environ.get("PYTHONPATH", "")) if p),
        }
        yield hosts
        server.shutdown()
        thread.join(timeout=_ANSWER_S)


def internet() -> Path:
    """The folder that belongs on a process's PYTHONPATH."""
    return Path(__file__).parent / "internet"


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Files with a certificate of an authority (authority.pem beside them) for CERTIFIED, and with its key."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)

    def begun(subject: str, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        names = [
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (subject, "authority of the tests")
        ]
        builder = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(public_key)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - day).not_valid_after(now + day)

    constraints = x509.BasicConstraints(ca=True, path_length=0)
    authority = begun("authority of the tests", authority_key.public_key()).add_extension(constraints, critical=True)
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in CERTIFIED])
    leaf = begun("media", key.public_key()).add_extension(names, critical=False)
    places = [folder / f"{part}.pem" for part in ("authority", "certificate", "key")]
    for place, built in zip(places, (authority, leaf), strict=False):
        signed = built.sign(authority_key, hashes.SHA256())
        place.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    places[2].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return places[1], places[2]
