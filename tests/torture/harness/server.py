"""Forks a process per lgbatch command from one that has imported everything. Run as a script.

Reads requests from standard input, one JSON object per line. Answers on standard output with two lines: the number of
the process, then its status as returned by os.waitpid. The forked process runs Python's exit handlers, but then calls
os._exit: native libraries would wait for threads that do not exist in a fork.
"""

import atexit
import ctypes
import gc
import json
import os
import sys
import traceback
import zlib  # noqa: F401  before pycolmap

import cv2  # noqa: F401
import onnx  # noqa: F401
import pycolmap  # noqa: F401

import lgbatch.cli.main
import lgbatch.report.make
from lgbatch.cli.commands import COMMANDS, load

for name in COMMANDS:
    load(name)


def redirect(path: str, descriptor: int) -> None:
    """Let a file descriptor write to a new file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, descriptor)
    os.close(file)


for line in sys.stdin:
    request = json.loads(line)
    process = os.fork()
    if not process:
        break
    print(process, flush=True)
    print(os.waitpid(process, 0)[1], flush=True)
else:
    sys.exit()

os.setsid()
os.chdir(request["folder"])
redirect(os.devnull, 0)
redirect(request["out"], 1)
redirect(request["err"], 2)
os.environ.update(request["environment"])
sys.argv = ["lgbatch", *(os.fsdecode(bytes.fromhex(argument)) for argument in request["arguments"])]
exec(request["preamble"], {"__name__": "preamble"})
if request["fault"]:
    root, log, *numbers = request["fault"]
    os.environ["LGBATCH_FAULTS"] = "\n".join(map(str, request["fault"]))  # for the processes that this one starts
    ctypes.CDLL(None).faults_arm(os.fsencode(root), os.fsencode(log), *numbers)
status: object = 0
try:
    lgbatch.cli.main.main()
except SystemExit as end:
    status = end.code
except BaseException:
    traceback.print_exc()
    status = 1
gc.collect()
atexit._run_exitfuncs()
sys.stdout.flush()
sys.stderr.flush()
os._exit(status if isinstance(status, int) else int(status is not None))
