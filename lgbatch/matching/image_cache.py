"""A thread-safe cache of encoded images, so that an image is encoded once for all its pairs."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from lgbatch.matching.backend import Points
from lgbatch.types import Failure


class EncodedImageCache:
    """Least recently used cache of encoded images. The first thread that asks for an image encodes it; others wait."""

    def __init__(self, encode: Callable[[str], Points | Failure], capacity: int, uses: Mapping[str, int]) -> None:
        """Cache up to `capacity` images, and drop an image after uses[name] calls of `get`.

        `encode` computes the encoded image of a name. An image that cannot be encoded is a Failure rather than an
        exception: the traceback of an exception that each pair raises again would grow with every pair.
        """
        self._encode, self._capacity, self._uses_left = encode, capacity, dict(uses)
        self._lock = threading.Lock()
        self._images: OrderedDict[str, Future[Points | Failure]] = OrderedDict()

    def get(self, name: str) -> Points | Failure:
        """Return an encoded image, or its Failure. Raises what `encode` raised, in each thread that waits for it."""
        with self._lock:
            future = self._images.get(name)
            is_new = future is None
            if future is None:
                future = self._images[name] = Future()
                while len(self._images) > self._capacity:
                    self._images.popitem(last=False)
            self._images.move_to_end(name)
            self._uses_left[name] -= 1
            if not self._uses_left[name]:
                del self._images[name]
        if is_new:
            try:
                future.set_result(self._encode(name))
            except BaseException as error:
                future.set_exception(error)
        return future.result()
