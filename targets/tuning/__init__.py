"""Tuning: what can be set in a runtime, as data, and the search for what is fastest on a board, by measuring there."""
