"""Complete pipelines over the stages: photos to a model (sfm), the demo, and the matches of two photos (infer)."""
