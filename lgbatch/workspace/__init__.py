"""The workspace of a run: its files, its lock, and the skeleton that its stages share.

The skeleton covers skipping of unchanged stages, stale items, failures, commits and signals.
"""
