"""Geometric verification and mapping by COLMAP, advice on incomplete models, and evaluation against ground truth."""
