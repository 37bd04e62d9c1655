"""Points for cameras whose poses are known and stay as they are."""
