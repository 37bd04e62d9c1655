"""Image pairs: which images to match, and the pairs file."""
