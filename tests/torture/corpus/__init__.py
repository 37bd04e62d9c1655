"""Input of the torture tests: corrupt and unusual files of every kind, and the fuzzer of the readers."""
