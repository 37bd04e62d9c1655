"""Extractor networks for the export, one module per family: each has `graph`, `OPSET` and `THRESHOLD`.

The networks compute what lgbatch.export.reference computes, rearranged for speed and for batches of any size.
"""
