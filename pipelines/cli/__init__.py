"""The command line, one file a command; `entry` joins them."""

from pipelines.cli.entry import app, main

__all__ = ["app", "main"]
