"""Evaluation of models against ground truth, in the formats of the common data sets."""
