"""The child process: messages, errors, Ctrl-C."""

import signal
import threading
import time
from collections import deque

import pytest

from lgbatch.reconstruction import subprocess_worker
from lgbatch.reconstruction.subprocess_worker import Message, WorkerDied, run_worker


def test_messages_and_result_reach_the_parent() -> None:
    messages = []
    assert run_worker("tests.helpers.echo_worker", {"do": "add", "sum": [1, "é"]}, messages.append) == {"sum": [1, "é"]}
    assert [message for message in messages if message] == [{"number": 1}]


@pytest.mark.parametrize(
    ("action", "error", "message"), [("abort", WorkerDied, "^no room$"), ("raise", RuntimeError, "^no such")]
)
def test_an_abort_or_an_error_of_the_child_is_raised(
    action: str, error: type[Exception], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    with pytest.raises(error, match=message):
        run_worker("tests.helpers.echo_worker", {"do": action}, lambda _: None)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(error, match=message):
        run_worker("tests.helpers.echo_worker", {"do": action}, lambda _: None, on_stderr=lines.append)
    assert any("no room" in line for line in lines) == (action == "abort")


def test_a_module_that_cannot_be_started_is_reported() -> None:
    with pytest.raises(WorkerDied, match=r"^its process exited with status 1$"):
        run_worker("no_such_module", {}, lambda _: None)


def test_ctrl_c_stops_the_child_and_waits_for_it() -> None:
    # Ctrl-C is ignored if a shell runs the tests in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    messages, threads = [], threading.active_count()

    def on_message(message: Message | None) -> None:
        messages.append(message)
        if message == {"number": 1}:
            threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()

    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_worker("tests.helpers.echo_worker", {"do": "wait", "sum": 0}, on_message)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 5 and {"number": 1} in messages
    assert threading.active_count() <= threads


def test_an_error_of_the_parent_ends_the_child() -> None:
    def on_message(message: Message | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_worker("tests.helpers.echo_worker", {"do": "wait", "sum": 0}, on_message)


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (['  File "x.py", line 3, in <module>', "Fatal: not glog's", "F 12 ]"], "its process exited with status 7"),
        (["Traceback (most recent call last):", 'File "x.py", line 3', "KeyError: 'log'"], "KeyError: 'log'"),
        (["F20261125 14:22:57.237092 140164848416448 database.cc:283] Check failed: a == b"], "Check failed: a == b"),
        (["F1125 14:22:57.237092    77 database.cc:283] [sqlite.cc:3] no room [x] left"], "no room [x] left"),
        (["what():  [some.cc:7] no room", 'File "y.py", line 1'], "no room"),
    ],
)
def test_only_a_fatal_line_of_the_log_is_the_cause(lines: list[str], cause: str) -> None:
    assert subprocess_worker._cause_of_death(deque(lines), 7) == cause
