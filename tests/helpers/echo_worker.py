"""A worker for the tests of subprocess_worker: `python -m tests.helpers.echo_worker`."""

import os
import sys
import threading

from lgbatch.reconstruction.subprocess_worker import Message, Report, serve

stopped = threading.Event()


def work(request: Message, report: Report) -> Message:
    if request["do"] == "abort":
        print("  what():  [some.cc:7] no room", file=sys.stderr, flush=True)
        os.abort()
    if request["do"] == "raise":
        raise ValueError("no such thing")
    print("not part of the answer")
    report({"number": 1})
    if request["do"] == "wait":
        stopped.wait()
        report({"number": 2})
    return {"sum": request["sum"]}


serve(work, stopped.set)
