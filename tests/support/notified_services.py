"""Services that notifications go to, on this machine: what takes a POST, as ntfy does, and a mail server.

The same server stands in for Slack and others: as the proxy of HTTPS_PROXY it takes each connection for their host.
"""

import json
import ssl
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from typing_extensions import override

from support.ports import free_port, running_program


@dataclass(frozen=True)
class Post:
    """What was posted, and to which host, if the proxy was asked for one."""

    host: str
    path: str
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class HttpService:
    """Answers with these statuses, then with 200. While it is held, it does not answer."""

    statuses: list[int] = field(default_factory=list[int])
    came: list[Post] = field(default_factory=list[Post])
    port: int = 0
    tls: ssl.SSLContext | None = None
    held: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.held.set()

    @property
    def texts(self) -> list[str]:
        return [post.body for post in self.came]


class _Handler(BaseHTTPRequestHandler):
    service: HttpService
    host = ""

    def do_CONNECT(self) -> None:
        self.host = self.path
        self.send_response(200)
        self.end_headers()
        assert self.service.tls is not None
        self.connection = self.service.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.handle_one_request()
        self.close_connection = True

    @override
    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.service.came.append(Post(self.host, self.path, dict(self.headers), body))
        self.service.held.wait(30)
        self.send_response(self.service.statuses.pop(0) if self.service.statuses else 200)
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(b"ok")

    @override
    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away, or do not trust the certificate, are no errors here."""


@contextmanager
def http_service(statuses: list[int] | None = None, tls: ssl.SSLContext | None = None) -> Generator[HttpService]:
    service = HttpService(statuses or [], tls=tls)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"service": service}))
    service.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield service
    finally:
        service.held.set()
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Certified:
    certificate: Path
    key: Path

    @property
    def context(self) -> ssl.SSLContext:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self.certificate, self.key)
        return tls


@contextmanager
def certified(folder: Path, variable: str, *hosts: str) -> Generator[Certified]:
    """Certify these hosts by a CA of their own, which this process trusts by this variable."""
    ca = trustme.CA()
    certificate = ca.issue_cert(*hosts)
    files = Certified(folder / f"{variable}_server.pem", folder / f"{variable}_server.key")
    certificate.cert_chain_pems[0].write_to_path(str(files.certificate))
    certificate.private_key_pem.write_to_path(str(files.key))
    ca.cert_pem.write_to_path(str(folder / f"{variable}.pem"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, str(folder / f"{variable}.pem"))
        yield files


@contextmanager
def internet(folder: Path, *hosts: str) -> Generator[HttpService]:
    """Stand in for these hosts, by HTTPS, for whatever in this process uses `requests`."""
    with (
        certified(folder, "REQUESTS_CA_BUNDLE", *hosts) as tls,
        http_service(tls=tls.context) as service,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{service.port}")
        patch.delenv("NO_PROXY", raising=False)
        patch.delenv("no_proxy", raising=False)
        yield service


@dataclass
class MailServer:
    port: int
    mails: Path

    def url(self, sign_in: str = "") -> str:
        return f"mailtos://{sign_in}localhost:{self.port}/?from=robot@example.com&to=oncall@example.com"

    @property
    def came(self) -> list[EmailMessage]:
        """The mails, oldest first, with their recipients as X-RcptTo."""
        files = sorted(self.mails.glob("new/*"), key=lambda file: file.stat().st_mtime_ns)
        return [message_from_bytes(file.read_bytes(), policy=policy.default) for file in files]


@contextmanager
def mail_server(folder: Path) -> Generator[MailServer]:
    """Run a mail server that takes mail by STARTTLS, and knows no sign-in."""
    server = MailServer(free_port(), folder / "mails")
    with certified(folder, "SSL_CERT_FILE", "localhost") as tls:
        files = ["--tlscert", str(tls.certificate), "--tlskey", str(tls.key)]
        handler = ["-c", "aiosmtpd.handlers.Mailbox", str(server.mails)]
        command = [sys.executable, "-m", "aiosmtpd", "-n", "-l", f"localhost:{server.port}", *files, *handler]
        with running_program(command, server.port):
            yield server
