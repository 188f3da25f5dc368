"""Networks of cells: the search for their architecture, and their training.

Without torch, for the driver: `genotype.py` (what a search finds), `recipes.py` (how networks are
trained), `trials.py` (the train function). Inside trials: `operations.py` and `network.py` (cells
and networks of them), `training.py` (the parts of a training loop), `ranks.py` (what ranks do
together), `retrain.py` (a network is trained from scratch). The search is in `pc_darts/`.
"""
