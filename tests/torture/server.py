"""Runs commands of lgbatch, each in a process of its own that is forked from one in which all is imported already.

Reads requests, one JSON object a line, from standard input, and answers on standard output: the process' number, then
its exit status as os.waitpid tells it. The forked process does all that Python does at its end, but is left before the
libraries tear themselves down: they look for their threads, which a fork does not have.
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
import lgbatch.kernels.library

lgbatch.kernels.library.unavailable_reason = lambda: "left out"  # the small networks are in single precision


def redirected(path: str, number: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(handle, number)
    os.close(handle)


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
redirected(os.devnull, 0)
redirected(request["out"], 1)
redirected(request["err"], 2)
os.environ.update(request["environment"])
sys.argv = ["lgbatch", *(os.fsdecode(bytes.fromhex(argument)) for argument in request["arguments"])]
exec(request["first"], {"__name__": "first"})
if request["fault"]:
    root, log, *numbers = request["fault"]
    os.environ["LGBATCH_FAULTS"] = "\n".join(map(str, request["fault"]))
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
