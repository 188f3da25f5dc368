"""The simulated world of `distsearch.testing.world`, with faults that it has to find."""
