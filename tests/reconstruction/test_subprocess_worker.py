import signal
import threading
import time

import pytest

from lgbatch.reconstruction import subprocess_worker as apart


def test_what_it_tells_and_returns() -> None:
    told = []
    assert apart.run_worker("tests.helpers.echo_worker", {"do": "add", "sum": [1, "é"]}, told.append) == {
        "sum": [1, "é"]
    }
    assert [message for message in told if message] == [{"number": 1}]


@pytest.mark.parametrize(
    ("do", "kind", "words"), [("abort", apart.Died, "^no room$"), ("raise", RuntimeError, "^no such")]
)
def test_how_it_fails(do: str, kind: type[Exception], words: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(kind, match=words):
        apart.run_worker("tests.helpers.echo_worker", {"do": do}, lambda _: None)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(kind, match=words):
        apart.run_worker("tests.helpers.echo_worker", {"do": do}, lambda _: None, show=True)
    assert ("no room" in capfd.readouterr().err) == (do == "abort")


def test_what_cannot_be_started() -> None:
    with pytest.raises(apart.Died, match=r"^its process ended with status 1$"):
        apart.run_worker("no_such_module", {}, lambda _: None)


def test_ctrl_c_lets_it_stop_and_waits_for_that() -> None:
    # A shell that starts the tests in the background has them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    told, threads = [], threading.active_count()

    def tell(message: apart.Message | None) -> None:
        told.append(message)
        if message == {"number": 1}:
            threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()

    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            apart.run_worker("tests.helpers.echo_worker", {"do": "wait", "sum": 0}, tell)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 5 and {"number": 1} in told
    assert threading.active_count() <= threads


def test_an_error_here_ends_it() -> None:
    def tell(message: apart.Message | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        apart.run_worker("tests.helpers.echo_worker", {"do": "wait", "sum": 0}, tell)
