"""What apart.py runs in the tests: `python -m working`."""

import os
import sys
import threading

from lgbatch.reconstruction.subprocess_worker import Message, Tell, serve

stopped = threading.Event()


def work(request: Message, tell: Tell) -> Message:
    if request["do"] == "abort":
        print("  what():  [some.cc:7] no room", file=sys.stderr, flush=True)
        os.abort()
    if request["do"] == "raise":
        raise ValueError("no such thing")
    print("not part of the answer")
    tell({"number": 1})
    if request["do"] == "wait":
        stopped.wait()
        tell({"number": 2})
    return {"sum": request["sum"]}


serve(work, stopped.set)
