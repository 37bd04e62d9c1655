"""Pictures of matches and models."""
