"""Finished models in a metric frame on the earth: by positions of photos, or by ground control points."""
