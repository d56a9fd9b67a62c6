"""An account for tests of scale: 400 connectors, 2,000 customers, 150 workflows and 200,000 executions of 30 days.

`python -m support.served_sandbox --port PORT --large` serves it, for a server that is started with `--base-url`.
"""

from large_account.account import large_account

__all__ = ["large_account"]
