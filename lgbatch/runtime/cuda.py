"""The CUDA driver through ctypes: names and free memory of the NVIDIA GPUs, and the version of the driver."""

import ctypes
import functools
import sys


@functools.cache
def gpus() -> tuple[str, ...]:
    """Return the names of the NVIDIA GPUs that the driver lists; empty without a driver."""
    cuda, count = _cuda(), ctypes.c_int(0)
    if cuda is None or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    names = []
    for i in range(count.value):
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(100)
        has_name = cuda.cuDeviceGet(ctypes.byref(device), i) == 0 and cuda.cuDeviceGetName(name, 100, device) == 0
        names.append(name.value.decode(errors="replace") if has_name else "unknown")
    return tuple(names)


def free_memory(device_id: int) -> int:
    """Return the free memory of a GPU in bytes, or 0 if the driver does not report it."""
    cuda, device, context = _cuda(), ctypes.c_int(0), ctypes.c_void_p()
    free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
    if cuda is None or cuda.cuDeviceGet(ctypes.byref(device), device_id) != 0:
        return 0
    if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) != 0:  # the context of ONNX Runtime
        return 0
    if cuda.cuCtxPushCurrent_v2(context) == 0:
        cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        cuda.cuCtxPopCurrent_v2(ctypes.byref(context))
    cuda.cuDevicePrimaryCtxRelease_v2(device)
    return free.value


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver, or None without a driver."""
    try:
        library = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        return None
    version = ctypes.create_string_buffer(100)
    if library.nvmlInit_v2() != 0 or library.nvmlSystemGetDriverVersion(version, 100) != 0:
        return None
    return version.value.decode(errors="replace")


def _cuda() -> ctypes.CDLL | None:
    """Load and initialise the driver library. Returns None without a driver."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return cuda if cuda.cuInit(0) == 0 else None
