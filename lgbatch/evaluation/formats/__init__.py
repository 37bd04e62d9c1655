"""Readers of ground truth."""
