"""Cameras and rigs of the images: which images share a camera, what is known of it, and which cameras form a rig."""
