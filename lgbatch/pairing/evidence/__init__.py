"""What tells which images may show one scene: their looks, their positions, the order of their names, a model."""
