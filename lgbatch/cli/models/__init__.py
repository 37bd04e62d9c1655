"""Commands on finished models."""
