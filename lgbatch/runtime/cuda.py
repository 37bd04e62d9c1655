"""Where models can run: the providers of ONNX Runtime, what each needs, and what is taken where it is not there.

The networks that find keypoints are mostly convolutions, which providers are made for. LightGlue is told the lengths
of what it attends to (the operator Attention of opset 24), which OpenVINO's provider refuses (1.24.1), and the others
have not been tried with: besides CUDA, matching runs on the CPU.
"""

import ctypes
import ctypes.util
import functools
import sys


@functools.cache
def gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs that the driver shows; none without a driver."""
    cuda, count = _cuda(), ctypes.c_int(0)
    if cuda is None or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    names = []
    for i in range(count.value):
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(100)
        known = cuda.cuDeviceGet(ctypes.byref(device), i) == 0 and cuda.cuDeviceGetName(name, 100, device) == 0
        names.append(name.value.decode(errors="replace") if known else "unknown")
    return tuple(names)


def free_memory(number: int) -> int:
    """Bytes of a GPU's memory that nobody uses; 0 where the driver does not tell."""
    cuda, device, context = _cuda(), ctypes.c_int(0), ctypes.c_void_p()
    free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
    if cuda is None or cuda.cuDeviceGet(ctypes.byref(device), number) != 0:
        return 0
    if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) != 0:  # the one that ONNX Runtime works in
        return 0
    if cuda.cuCtxPushCurrent_v2(context) == 0:
        cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        cuda.cuCtxPopCurrent_v2(ctypes.byref(context))
    cuda.cuDevicePrimaryCtxRelease_v2(device)
    return free.value


def driver() -> str | None:
    """Version of the NVIDIA driver; None where there is none."""
    try:
        library = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        return None
    version = ctypes.create_string_buffer(100)
    if library.nvmlInit_v2() != 0 or library.nvmlSystemGetDriverVersion(version, 100) != 0:
        return None
    return version.value.decode(errors="replace")


def _cuda() -> ctypes.CDLL | None:
    """The driver's library, ready; None where there is none."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return cuda if cuda.cuInit(0) == 0 else None
