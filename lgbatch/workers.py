"""Who matches at once: a matcher for each GPU, or on a CPU one for all threads."""

from pathlib import Path

from lgbatch.config import Settings
from lgbatch.devices import gpus
from lgbatch.matcher import Matcher
from lgbatch.runtime import available_cores


def open_matchers(models: Path, settings: Settings) -> list[Matcher]:
    """Open a matcher for each worker. Raises ModelError as models.open_stages.

    Every GPU that the driver shows gets one of its own (CUDA_VISIBLE_DEVICES hides the others); on a CPU the workers
    share one, each on a core. --workers says how many.
    """
    first = Matcher(models, settings)
    if first.stages.device == "cpu":
        return [first] * (settings.workers or settings.threads or available_cores())
    count = min(len(gpus()), settings.workers or len(gpus()))
    return [first, *(Matcher(models, settings, number=number) for number in range(1, count))]
