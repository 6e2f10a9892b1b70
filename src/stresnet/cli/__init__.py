"""The command line: one thin door for each verb."""

import os

# OpenMP threads that wait for work by spinning take the cores from the processes that decode clips: on two cores
# training runs at a fraction of its speed. The runtime reads this once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from stresnet.cli.app import main

__all__ = ["main"]
