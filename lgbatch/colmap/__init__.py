"""Import of features and matches into COLMAP's database: cameras, images, keypoints, matches, and the database file.

pycolmap is imported inside functions: if it is loaded before zlib or numpy, its own symbols shadow theirs.
"""
