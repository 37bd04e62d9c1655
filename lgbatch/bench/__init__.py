"""Benchmarks: matching engines, extractors, and whole runs against COLMAP with SIFT."""
