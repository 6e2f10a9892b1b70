"""`python -m stresnet`, the same as the command `stresnet`."""

from stresnet.cli import main

main()
