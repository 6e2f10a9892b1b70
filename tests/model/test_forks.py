"""A process that is forked after its parent has used a network can use it, too."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys, torch
from helpers.networks import network
from stresnet.errors import StresnetError
from stresnet.inference.engine import Engine

torch.set_num_threads(2)
engine = Engine(network().eval(), torch.device("cpu"), "fp32")
clips = torch.rand(1, 3, 5, 64, 64), torch.rand(1, 4, 5, 64, 64)
before = engine(*clips).fused
pid = os.fork()
if pid == 0:
    torch.testing.assert_close(engine(*clips).fused, before, rtol=1e-4, atol=1e-4)
    engine.compiled = True
    try:
        engine(*clips)
    except StresnetError as error:
        print(error, torch.get_num_threads(), flush=True)
        os._exit(0)
sys.exit(os.waitpid(pid, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes_the_same_or_says_why_not() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "a compiled network cannot be used in a forked process: load the model there, or spawn it 1\n"
