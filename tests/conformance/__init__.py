"""Kits of properties that every searcher, scheduler or store has to pass.

Derive a test class from a kit and say how one is made:

    class TestMySearcher(SearcherKit):
        make = MySearcher
"""
