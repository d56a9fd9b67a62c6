"""A receiver of approval questions, as small as it can be: checks them, asks on its terminal, signs the answers.

Nothing of fastn-mcp is imported: this is all that a receiver of your own has to do. It needs `cryptography`, and
`standardwebhooks`, which exists for other languages too.

    fastn-mcp approvals keygen dana          # prints what goes into approvers.toml (chmod 600)
    export FASTN_WEBHOOK_SECRET=$(openssl rand -hex 32)
    python examples/webhook_receiver.py --key dana=dana.pem

    FASTN_WEBHOOK_URL=http://127.0.0.1:8791/ FASTN_APPROVERS=approvers.toml fastn-mcp --sandbox

For each question it reads one line: `approve`, `approve TYPED NAME` or `decline NOTE`; with the keys of several
approvers their name comes first: `dana approve`. An empty line leaves the question waiting.
"""

import argparse
import hashlib
import json
import os
import queue
import secrets
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from standardwebhooks import Webhook, WebhookVerificationError

REMEMBERED = 600
"""Seconds that an id is remembered: twice as long as a signature is taken."""

LONGEST_BODY = 1 << 20

Question = dict[str, Any]


class Receiver(ThreadingHTTPServer):
    """Takes what is signed with the secret, once each; `questions` holds what nobody has looked at yet."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], secret: str) -> None:
        super().__init__(address, _Handler)
        # A secret that does not begin with whsec_ is the key as it stands.
        self.webhook = Webhook(secret if secret.startswith("whsec_") else secret.encode())
        self.questions: queue.Queue[Question] = queue.Queue()
        self._known: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(self, headers: dict[str, str], body: bytes) -> bool:
        """Whether it was signed with our secret, lately. What came before is taken and not asked again."""
        try:
            question = self.webhook.verify(body, headers)
        except (WebhookVerificationError, ValueError):
            return False
        id_ = next(value for name, value in headers.items() if name.lower() == "webhook-id")
        now = time.time()
        with self._lock:
            self._known = {known: until for known, until in self._known.items() if until > now}
            if id_ not in self._known:
                self._known[id_] = now + REMEMBERED
                self.questions.put(question)
        return True


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        receiver = cast("Receiver", self.server)
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > LONGEST_BODY:
            return self._answer(413)
        body = self.rfile.read(int(length))
        return self._answer(204 if receiver.take(dict(self.headers), body) else 401)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the class above
        pass


def shown(question: Question) -> str:
    """A question, for a terminal. Its lines come with their values quoted and without control characters."""
    lines = [f"\nGrant {question['grant']}: {question['requester']} asks", *question["lines"]]
    approvals = question["approvals"]
    if approvals["needed"] > 1:
        lines.append(f"It takes {approvals['needed']} approvers; so far: {', '.join(approvals['by']) or 'none'}.")
    if question["expected"] is not None:
        lines.append(f"To approve, type: approve {json.dumps(question['expected'])[1:-1]}")
    return "\n".join(lines)


def answer(
    question: Question, approver: str, key: Ed25519PrivateKey, decision: str, text: str = ""
) -> urllib.request.Request:
    """The signed answer. `text` is the name that was typed, or the note to the agent."""
    body: dict[str, Any] = {
        "grant": question["grant"],
        "decision": decision,
        "approver": approver,
        "timestamp": int(time.time()),
        "nonce": secrets.token_urlsafe(24),
        # Of what was shown, and not of what the question says of itself: this is what the approver signs for.
        "question": hashlib.sha256("\n".join(question["lines"]).encode()).hexdigest(),
    }
    if text:
        body["typed" if decision == "approve" else "note"] = text
    return signed(question["callback"], question["path"], body, key)


def signed(url: str, path: str, body: dict[str, Any], key: Ed25519PrivateKey) -> urllib.request.Request:
    """A request with this body, signed for this path."""
    data = json.dumps(body).encode()
    text = f"v1:POST:{path}:{body['timestamp']}:{body['nonce']}:{hashlib.sha256(data).hexdigest()}"
    headers = {"Content-Type": "application/json", "x-fastn-mcp-signature": "v1=" + key.sign(text.encode()).hex()}
    return urllib.request.Request(url, data, headers, method="POST")  # noqa: S310 - the address is our server's, signed


def sent(request: urllib.request.Request) -> str:
    """What the server said to an answer."""
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
            return f"{response.status} {response.read().decode()}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    except OSError as error:
        return f"The server cannot be reached: {error}. It asks again when the agent repeats the call."


def private_key(path: str) -> Ed25519PrivateKey:
    key = load_pem_private_key(Path(path).read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise SystemExit(f"{path} is not an Ed25519 key")
    return key


def main() -> None:
    options = argparse.ArgumentParser(description="Receives approval questions and answers them.")
    options.add_argument("--listen", default="127.0.0.1:8791", metavar="HOST:PORT")
    options.add_argument(
        "--key", action="append", required=True, metavar="NAME=FILE", help="An approver's private key."
    )
    given = options.parse_args()
    secret = os.environ.get("FASTN_WEBHOOK_SECRET", "")
    if len(secret) < 32:
        raise SystemExit("Set FASTN_WEBHOOK_SECRET, as the server has it.")
    keys = {name: private_key(path) for name, _, path in (text.partition("=") for text in given.key)}
    host, _, port = given.listen.rpartition(":")
    with Receiver((host, int(port)), secret) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        print(f"Waiting for questions at http://{host}:{receiver.server_address[1]}/", flush=True)
        while True:
            question = receiver.questions.get()
            print(shown(question), flush=True)
            print(f"[{'|'.join(keys)}] approve [NAME] | decline [NOTE] > ", end="", flush=True)
            line = sys.stdin.readline()
            if not line:
                return
            words = line.strip().split(" ", 1 if len(keys) == 1 else 2)
            approver = next(iter(keys)) if len(keys) == 1 else words.pop(0)
            if approver not in keys or not words or words[0] not in ("approve", "decline"):
                print("Left waiting.", flush=True)
                continue
            print(sent(answer(question, approver, keys[approver], words[0], *words[1:])), flush=True)


if __name__ == "__main__":
    main()
