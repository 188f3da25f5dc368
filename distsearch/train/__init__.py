"""What train functions use inside a trial: layers inherited from a parent's weights, the process
group of a trial's ranks.

It sees of distsearch only `core`; torch is imported when something of it is called.
"""

from .group import process_group

__all__ = ["process_group"]
