"""Progress outside a terminal: a line every 30 seconds on standard error."""

import io
import sys

import pytest

from lgbatch.workspace import forecast, progress
from lgbatch.workspace.progress import Progress, track


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
