"""The program: `lgbatch`, or `python -m lgbatch`."""

import sys

_HINTS = {
    "libGL": "install it (Debian, Ubuntu: apt-get install libgl1), or run "
    "`pip uninstall -y opencv-python && pip install opencv-python-headless`",
    "libgthread": "install it (Debian, Ubuntu: apt-get install libglib2.0-0), or run "
    "`pip uninstall -y opencv-python && pip install opencv-python-headless`",
    "onnxruntime": "reinstall it with `pip install --force-reinstall onnxruntime-gpu`, or `onnxruntime` without a GPU; "
    "only one of the two may be installed",
    "pycolmap": "pycolmap has no wheel for this platform: build it from source, see COLMAP's documentation",
}
"""What to do if an import fails, by a part of the message."""


def main() -> None:
    """Run the command line. A library that cannot be loaded ends it with one line and exit status 2."""
    try:
        from lgbatch.cli.main import main as run
    except ImportError as error:
        if "--debug" in sys.argv:
            raise
        reason = " ".join(str(error).split())
        hint = next((hint for part, hint in _HINTS.items() if part in reason), "run `pip install --upgrade lgbatch`")
        sys.exit(_report(f"cannot start: {reason}: {hint}"))
    run()


def _report(line: str) -> int:
    print(f"lgbatch: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
