"""The command line: `app` says what can be typed, the other modules do it and are imported only then."""

from zene.cli.app import main

__all__ = ["main"]
