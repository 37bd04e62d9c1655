"""Pretrained weights: the catalogue of known files, finding and downloading them, loading their state dicts.

No module here imports torch when it is imported.
"""
