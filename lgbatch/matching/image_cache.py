"""What comes of pairs: they are ordered, their features read ahead, and matched in threads."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from lgbatch.matching.backend import Points


class EncodedImageCache:
    """What images need for all of their pairs, computed once while it is in memory, by whichever thread asks first."""

    def __init__(self, make: Callable[[str], Points], capacity: int, uses: Mapping[str, int]) -> None:
        """Keep the `capacity` images that were used last, and none that was used as often as `uses` says."""
        self._make, self._capacity, self._left = make, capacity, dict(uses)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Future[Points]] = OrderedDict()
        self.made = 0

    def get(self, name: str) -> Points:
        """Return an image's stem; raises what making it raised."""
        with self._lock:
            future = self._kept.get(name)
            mine = future is None
            if future is None:
                future = self._kept[name] = Future()
                self.made += 1
                while len(self._kept) > self._capacity:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(name)
            self._left[name] -= 1
            if not self._left[name]:
                del self._kept[name]
        if mine:
            try:
                future.set_result(self._make(name))
            except BaseException as error:
                future.set_exception(error)
        return future.result()
