"""The match stage: LightGlue on pairs of images, from features.h5 and pairs.txt to matches.h5.

match.py is the stage, engine.py schedules the pairs and runs the workers, lightglue.py is LightGlue itself.
runner.py is a small Python API for a few photos.
"""
