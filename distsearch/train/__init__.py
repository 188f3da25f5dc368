"""What train functions use inside a trial: layers inherited from a parent's weights.

It sees of distsearch only `core`; torch is imported when something of it is called.
"""
