"""`python -m inlay.tuner` is the command line."""

from inlay.tuner.cli import main

if __name__ == "__main__":
    main()
