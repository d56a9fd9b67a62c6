"""The receiver of `examples/`, in the process of a test."""

import importlib.util
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[2] / "examples" / "webhook_receiver.py"
SECRET = "a secret that both sides know: 0123456789"


def example() -> Any:
    """Import the example as a module, so that a test can change one thing of its process."""
    spec = importlib.util.spec_from_file_location("webhook_receiver", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def received(url: str, module: Any) -> Generator[Any]:
    """Run the example's receiver at this address. Its queue has the requests that came."""
    port = int(url.rstrip("/").rpartition(":")[2])
    with module.Receiver(("127.0.0.1", port), SECRET) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, daemon=True)
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()
