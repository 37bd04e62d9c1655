"""The program: `lgbatch`, or `python -m lgbatch`."""

import atexit
import gc
import sys

from lgbatch.runtime.packages import import_hint


def main() -> None:
    """Run the command line. A library that cannot be loaded ends it with one line and exit status 2.

    Imports make many objects and no garbage, so the search for it starts with the command (cli/options.py), and leaves
    them out, at the end of the process too: a sixth of what starting and ending takes.
    """
    gc.disable()
    atexit.register(gc.freeze)
    try:
        from lgbatch.cli.main import main as run

        run()  # imports the command
    except (ImportError, AttributeError) as error:  # AttributeError: a library that was partly removed
        hint = import_hint(error)
        if "--debug" in sys.argv or (hint is None and isinstance(error, AttributeError)):
            raise
        reason = " ".join(str(error).split())
        sys.exit(_report(f"cannot start: {reason}: {hint or 'run `pip install --upgrade lgbatch`'}"))


def _report(line: str) -> int:
    print(f"lgbatch: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
