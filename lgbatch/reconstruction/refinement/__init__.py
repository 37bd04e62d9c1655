"""Refinement of finished models: observations aligned in the photos at full resolution, and better intrinsics."""
