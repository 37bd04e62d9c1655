"""Progress outside a terminal: a line every 30 seconds on standard error."""

import io
import sys

import pytest

from lgbatch.workspace import forecast, progress
from lgbatch.workspace.progress import Progress, ProgressEvent, report_progress, track


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def test_a_line_every_30_seconds_tells_what_is_done_and_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in track(range(100), "extract", total=100, unit="photo"):
        clock.now += 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert lines[0] == "lgbatch: extract: 15 of 100 photos, 00:30 so far, about 02:50 left"
    assert lines[-1] == "lgbatch: extract: 90 of 100 photos, 03:00 so far, about 00:20 left"


def test_a_step_that_counts_nothing_tells_its_time(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    step = Progress("verification", total=None, unit="image")
    for _ in range(650):
        clock.now += 0.1
        step.refresh()
    step.close()
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == ("", [f"lgbatch: verification: {time} so far" for time in ("00:30", "01:00")])


def test_short_or_hidden_steps_print_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", "match", total=3, unit="pair")) == ["a", "b", "c"]
    hidden = Progress("mapping", total=3, unit="image", shown=False)
    clock.now = 100
    hidden.update()
    hidden.close()
    assert capsys.readouterr() == ("", "") and hidden.done == 1


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(track(range(3), "match", total=3, unit="pair")) == [0, 1, 2]
    assert "match: 100%" in terminal.getvalue() and "3/3" in terminal.getvalue()


def test_a_forecast_is_told_once_and_advises_on_long_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter(range(1000))
    monkeypatch.setattr(forecast.time, "monotonic", lambda: float(next(now)))
    for pairs, expected in (
        (50, ""),
        (1000, "lgbatch: 1000 pairs: about 17 min of matching, 6 MB of disk\n"),
        (10_000, "lgbatch: 10000 pairs: about 2.8 hours of matching, 65 MB of disk; walk\n"),
    ):
        told = forecast.Forecast(pairs, "walk")
        for _ in range(20):  # one a second
            told.update()
        assert capsys.readouterr().err == expected


def test_a_callback_gets_each_event_in_the_place_of_bars(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    events: list[ProgressEvent] = []
    with report_progress(events.append):
        assert list(track("ab", "match", total=2, unit="pair")) == ["a", "b"]
        list(track("ab", "hidden", total=2, unit="pair", shown=False))
        step = Progress("verification", total=None, unit="image")
        step.refresh()
        step.close()
    assert [(e.step, e.done, e.total, e.unit, e.ended) for e in events] == [
        ("match", 0, 2, "pair", False),
        ("match", 1, 2, "pair", False),
        ("match", 2, 2, "pair", False),
        ("match", 2, 2, "pair", True),
        ("verification", 0, None, "image", False),
        ("verification", 0, None, "image", False),
        ("verification", 0, None, "image", True),
    ]
    assert all(event.seconds >= 0 for event in events) and capsys.readouterr() == ("", "")
    list(track("ab", "match", total=2, unit="pair"))
    assert len(events) == 7 and "match: 100%" in capsys.readouterr().err


def test_an_exception_of_the_callback_ends_the_step() -> None:
    finished: list[str] = []
    calls: list[ProgressEvent] = []

    def stop(event: ProgressEvent) -> None:
        calls.append(event)
        if event.done == 1:
            raise KeyError("enough")

    with report_progress(stop), pytest.raises(KeyError, match="enough"):
        for item in track("abc", "match", total=3, unit="pair"):
            finished.append(item)
    assert finished == ["a"] and len(calls) == 2
