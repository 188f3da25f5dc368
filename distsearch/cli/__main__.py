"""`python -m distsearch.cli` is the same as `distsearch`."""

from .main import main

if __name__ == "__main__":
    main()
