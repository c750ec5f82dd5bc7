"""The command line: one verb for each stage of a model's way to a board.

Every verb imports what it needs when it runs, so that ``edgeseq --help`` answers at once.
"""

from edgeseq.cli.app import main

__all__ = ["main"]
