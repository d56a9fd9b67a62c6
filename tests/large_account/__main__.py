"""Write the large account to a file of the sandbox: `python -m large_account FILE`."""

import sys
from pathlib import Path

from large_account import write_account

write_account(Path(sys.argv[1]))
