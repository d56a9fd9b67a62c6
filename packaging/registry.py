"""`server.json` with the bundle of a release, of which the registry wants the digest: `registry.py BUNDLE`."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

SERVER = Path(__file__).parent.parent / "server.json"
MANIFEST = Path(__file__).parent / "bundle/manifest.json"


def with_bundle(server: dict[str, Any], repository: str, name: str, data: bytes) -> dict[str, Any]:
    """The document, with a package more: where the release has the bundle, and what it must be."""
    bundle = {
        "registryType": "mcpb",
        "identifier": f"{repository}/releases/download/v{server['version']}/{name}",
        "version": server["version"],
        "fileSha256": hashlib.sha256(data).hexdigest(),
        "transport": {"type": "stdio"},
    }
    return server | {"packages": [*server["packages"], bundle]}


def main(bundle: Path) -> None:
    server = json.loads(SERVER.read_text(encoding="utf-8"))
    repository = json.loads(MANIFEST.read_text(encoding="utf-8"))["repository"]["url"]
    json.dump(with_bundle(server, repository, bundle.name, bundle.read_bytes()), sys.stdout, indent=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
