"""`fastn-mcp sandbox`: the sandbox over HTTP."""

from datetime import UTC, datetime
from pathlib import Path

import click
import uvicorn

from fastn_mcp.cli.starting import SANDBOX_KEY
from fastn_mcp.sandbox import Sandbox, Size, create_app


def serve(port: int, file: Path | None, size: str) -> None:
    """Serve on the loopback address until told to stop."""
    sandbox = Sandbox(lambda: datetime.now(UTC), size=Size(size), file=file)
    click.echo(f"Sandbox at http://127.0.0.1:{port} with the key {SANDBOX_KEY}. Use it from another terminal:")
    click.echo(f"  FASTN_BASE_URL=http://127.0.0.1:{port} FASTN_API_KEY={SANDBOX_KEY} fastn-mcp call list-customers")
    app = create_app(sandbox, control=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, server_header=False)
