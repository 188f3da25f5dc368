"""Seeing a search in a browser: figures with Bokeh, the live page, the report, the notebook.

Each panel (`panel.py`) has a function that prepares plain data and one that draws them once; what
changes later are columns of numbers, which the page and a notebook replace in the figure that is
there. The preparation is that of `distsearch.plots`.
"""
