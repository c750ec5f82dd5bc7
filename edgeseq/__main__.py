"""``python -m edgeseq``: the same as the console script."""

from edgeseq.cli import main

if __name__ == "__main__":
    main()
