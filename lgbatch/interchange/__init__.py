"""Results in the formats that other programs read, and theirs in lgbatch's."""
