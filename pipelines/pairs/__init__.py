"""The choice of image pairs for a workspace."""
