"""`python -m distsearch` is the command `distsearch`."""

from .cli.main import main

if __name__ == "__main__":
    main()
