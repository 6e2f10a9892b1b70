"""The command line: one thin door for each verb."""

from stresnet.cli.main import main

__all__ = ["main"]
