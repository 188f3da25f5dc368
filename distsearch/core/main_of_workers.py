"""What the worker processes of a trial run in place of the user's script, as their `__main__`.

`multiprocessing` would run the user's script again, which another node does not have. This module
loads the train function as the trial did, with all that came along of the script.
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
