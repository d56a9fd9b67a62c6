"""An account for tests of scale: 400 connectors, 2,000 customers, 150 workflows and 200,000 executions of 30 days.

`python -m large_account FILE` writes it, for a server that is started with `--sandbox-file FILE`.
"""

from large_account.account import large_account, write_account

__all__ = ["large_account", "write_account"]
