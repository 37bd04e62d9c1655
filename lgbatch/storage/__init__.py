"""features.h5 and matches.h5: HDF5 stores with atomic, durable commits and the provenance of every item.

features.py and matches.py define the layout of the items, store.py is their common base, and journal.py makes a commit
atomic.
"""
