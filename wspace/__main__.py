"""`python -m wspace`: the command line, for launchers that start modules."""

from wspace.cli import main

main()
