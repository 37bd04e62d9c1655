"""Poses of new photos in a finished model."""
