"""The command line: ``ssmred reduce | inspect | verify | latency | report | prune | zoo``."""

from ssmred.cli.commands import app, main

__all__ = ["app", "main"]
