"""The command line: one module per command."""

import os

# OpenMP threads that spin while waiting starve the processes that decode clips: on two cores training runs at a
# fraction of its speed. The OpenMP runtime reads this once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from stresnet.cli.app import main

__all__ = ["main"]
