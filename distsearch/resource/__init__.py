"""Nodes, their slots, and how the driver reaches them."""
