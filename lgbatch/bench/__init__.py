"""Measurements: the engines side by side, and whole runs against COLMAP alone."""
