"""Upkeep of the stores: without unused space, without removed images, without damaged items."""
