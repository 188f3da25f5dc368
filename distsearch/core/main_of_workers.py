"""What the worker processes of a trial run in place of the user's script, as their `__main__`.

`multiprocessing` would run the script again, which another node does not have. This has what the
trial has.
"""

import os
import sys

from distsearch.core import arrival

arrival.load(os.environ[arrival.FUNCTION])
globals().update(
    {
        name: value
        for name, value in vars(sys.modules["__main__"]).items()
        if name == "__file__" or not name.startswith("__")
    }
)
