"""PC-DARTS: partially connected differentiable architecture search, on any number of ranks.

Source: Xu et al., ICLR 2020, arXiv 1907.05737. Without torch: `settings.py` (what is usual) and
`trials.py` (the train function). Inside trials: `supernet.py` (the network, and what is searched),
`steps.py` (one step), `search.py` (the epochs).
"""
