"""lgbatch under torture: killed, on failing disks, with bad and hostile input. `make torture` runs it for long.

Everything goes through whole processes, and is judged from outside: plain h5py, sqlite3 in a process of its own.
The networks are small stand-ins (standin.py) that find painted points (scene.py); all other code is the real one.
"""
