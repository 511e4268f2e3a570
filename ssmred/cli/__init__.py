"""The command line: ``ssmred reduce | inspect | verify | latency | zoo``."""

from ssmred.cli.commands import app, main

__all__ = ["app", "main"]
