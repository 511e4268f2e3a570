"""Run the command line with ``python -m ssmred.cli``."""

from ssmred.cli.commands import main

main()
