"""What the torture tests run on: processes, fault injection, stand-in models, painted photos, independent readers."""
