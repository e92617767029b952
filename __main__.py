"""`python -m linearch` is the command linearch."""

from .cli import main

if __name__ == "__main__":
    main()
