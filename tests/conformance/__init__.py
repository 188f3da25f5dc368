"""Every searcher, scheduler and store passes its kit of `distsearch.testing`."""
