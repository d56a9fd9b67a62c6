"""`fastn-mcp sandbox`: serve the sandbox over HTTP."""

import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import uvicorn

from fastn_mcp.build.startup import must_be_free
from fastn_mcp.cli.layout import say
from fastn_mcp.config.command_line import this_program
from fastn_mcp.extensions.sandbox.app import create_app
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.extensions.sandbox.server import Sandbox


@click.command(name="sandbox")
@click.option("--port", type=click.IntRange(1, 65535), default=8765, show_default=True, help="Port on 127.0.0.1.")
@click.option("--file", type=click.Path(path_type=Path), help="Keep the state in this file.")
@click.option("--issuer", is_flag=True, help="Also act as an OpenID provider, to try a team's server on this machine.")
def sandbox(port: int, file: Path | None, issuer: bool) -> None:
    """Serve the sandbox over HTTP, for others to test against."""
    must_be_free("127.0.0.1", port, "Choose another port: fastn-mcp sandbox --port PORT")
    url = f"http://127.0.0.1:{port}"
    app = create_app(Sandbox(lambda: datetime.now(UTC), file=file))
    say(f"Sandbox at {url} with the key {KEY}. Use it from another terminal:")
    variables = (("FASTN_BASE_URL", url), ("FASTN_API_KEY", KEY))
    click.echo(f"  {replace(this_program(os.environ), variables=variables).to('call', 'list-customers')}")
    if issuer:
        from fastn_mcp.extensions.sandbox import issuer as trial  # only on demand

        app = trial.TrialIssuer(url, time.time).beside(app)
        say(f"OpenID provider at {url}, for a team's server on this machine. Choose on its page who signs in.")
        say(f"Approval page client id: {trial.CLIENT}, secret: {trial.CLIENT_SECRET}")
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, server_header=False)
