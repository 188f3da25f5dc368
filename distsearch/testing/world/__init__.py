"""The search in a world of its own: the real driver and the real agents, nothing else real.

    python -m distsearch.testing.world 3000          many seeds
    python -m distsearch.testing.world --seed 17     one, told step by step

    from distsearch.testing.world import play
    story = play(17)                                 # SeedFailed if a guarantee was broken
    print(story, story.world.steps, story.world.trace[-1])

Real, line by line what users run: the scheduler with its rule and its searcher, the experiment,
the slot manager, the fleet, the driver's side of the Dask link (`Cluster`, `DaskRemote`: batches,
numbers, pings), the plugin that holds an agent in a Dask worker, the agent, checkpoints on their
way between nodes and driver, and the store with its SQLite file.

Fake: the clock, so that minutes pass in milliseconds; Dask and its network (`dask.py`); processes
and what trains in them (`trials.py`). Each machine has an asyncio loop (`machines.py`), and `World`
takes steps of the one whose turn it is, so that one seed is one story, down to the last message.
`plan.py` draws what is searched, and on what nodes; `story.py` tells it, `troubles.py` is what
befalls it, `judge.py` says what must hold; what these have to know of a driver's insides stands in
`insides.py`. Imports go one way: `machines <- dask <- trials <- judge, troubles <- story`, and
`plan` is seen from `trials` on.

What the fake Dask promises is what TCP and Dask promise, and no more. Messages between two
processes arrive in order, once, or never, after a delay that may be long; a connection that
breaks is noticed by either side at once, late, or only by silence. A driver that is not heard of
is not told to its nodes, nor a node to its driver; that another process is dead is never known for
sure. No process finds its way back into a connection: a worker whose connection broke leaves and
comes back as a new one, when somebody starts it (here: `Story.look_after_nodes`). A suspended node
is suspended whole, as a virtual machine is, its trials too. Sent twice is only what agents say, to
the driver, late and out of order ("echo"), which Dask never does.
"""

from .machines import Violation, World
from .plan import Weather
from .story import SeedFailed, Story, play

__all__ = ["SeedFailed", "Story", "Violation", "Weather", "World", "play"]
