"""Geometric verification and mapping by COLMAP, and advice on incomplete models."""
