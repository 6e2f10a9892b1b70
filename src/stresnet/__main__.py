"""Run the command line with `python -m stresnet`."""

from stresnet.cli import main

main()
