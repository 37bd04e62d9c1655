"""Joins shards, stores that other processes or machines have finished, into one store."""
