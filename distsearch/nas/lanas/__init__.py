"""LaNAS on networks of cells, and against tables of networks that others have trained.

`cells.py`: the space of cells and its pools; `trials.py`: the train function, whose training is in
`training.py`; `tables.py`: tables, on which `race.py` lets searchers run; `pictures.py`; and
`ranking.py`, what a search has found.
"""
