"""Queries to the CUDA driver, with a simulated driver."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lgbatch.runtime import cuda
from lgbatch.runtime.cuda import free_memory, gpus


class Driver:
    """A simulated CUDA driver. `memory` has (free, total) bytes of each GPU; the call named `broken` fails."""

    def __init__(self, *memory: tuple[int, int], broken: str = "") -> None:
        self.memory, self.broken, self.current, self.retained = memory, broken, -1, 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *arguments: 100 if name == self.broken else self.call(name, *arguments) or 0

    def call(self, name: str, *arguments: Any) -> int | None:
        if name == "cuDeviceGetCount":
            arguments[0]._obj.value = len(self.memory)
        elif name == "cuDeviceGet":
            if arguments[1] >= len(self.memory):
                return 101
            arguments[0]._obj.value = arguments[1]
        elif name == "cuDeviceGetName":
            arguments[0].value = f"GPU {arguments[2].value}".encode()
        elif name == "cuDevicePrimaryCtxRetain":
            self.retained += 1
            arguments[0]._obj.value = arguments[1].value + 1
        elif name == "cuDevicePrimaryCtxRelease_v2":
            self.retained -= 1
        elif name == "cuCtxPushCurrent_v2":
            self.current = arguments[0].value - 1
        elif name == "cuCtxPopCurrent_v2":
            self.current = -1
        elif name == "cuMemGetInfo_v2":
            arguments[0]._obj.value, arguments[1]._obj.value = self.memory[self.current]
        else:
            assert name == "cuInit"
        return None


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Two GPUs with 5 GiB and 70 GiB of free memory."""
    simulated = Driver((5 << 30, 8 << 30), (70 << 30, 80 << 30))
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: simulated)
    gpus.cache_clear()
    yield simulated
    gpus.cache_clear()


def test_names_and_free_memory_are_those_of_each_gpu(driver: Driver) -> None:
    assert [free_memory(device_id) for device_id in range(3)] == [5 << 30, 70 << 30, 0]
    assert gpus() == ("GPU 0", "GPU 1")
    assert (driver.current, driver.retained) == (-1, 0)


@pytest.mark.parametrize("call", ["cuInit", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuMemGetInfo_v2"])
def test_free_memory_is_zero_if_a_call_fails(driver: Driver, call: str) -> None:
    driver.broken = call
    assert free_memory(0) == 0
    assert driver.retained == 0
