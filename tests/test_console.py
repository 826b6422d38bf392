"""What a long job shows of its progress, on a terminal and in a log."""

import sys

import pytest

from fluoroscope import console
from fluoroscope.console import Progress, make_console, short_path, show_progress


@pytest.fixture
def clock(monkeypatch):
    """A clock in seconds that the test sets."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def run(clock, steps, seconds_per_step, **arguments):
    for _ in show_progress(range(steps), "checking images", steps, **arguments):
        clock[0] += seconds_per_step


def test_a_short_job_writes_nothing_to_a_log(clock, capsys):
    run(clock, 9, 1.0)
    assert capsys.readouterr() == ("", "")


def test_a_long_job_writes_a_line_after_10_s_then_every_30_s_and_at_its_end(clock, capsys):
    run(clock, 120, 1.0)
    lines = [
        "checking images: 10 of 120 done, 1 per second, 2 min left",
        "checking images: 40 of 120 done, 1 per second, 2 min left",
        "checking images: 70 of 120 done, 1 per second, 1 min left",
        "checking images: 100 of 120 done, 1 per second, 1 min left",
        "checking images: 120 of 120 done in 2 min",
    ]
    assert capsys.readouterr() == ("", "\n".join(lines) + "\n")


def test_slow_steps_are_counted_per_minute_and_an_unknown_total_is_left_out(clock, capsys):
    with Progress("drawing figures") as progress:
        clock[0] += 24.0
        progress.advance()
    assert capsys.readouterr().err.startswith("drawing figures: 1 done, 2.5 per minute\n")


def test_the_description_may_change_and_steps_may_come_in_blocks(clock, capsys):
    with Progress("pass 1/2", total=100) as progress:
        clock[0] += 20
        progress.advance(50, "pass 2/2")
    assert capsys.readouterr().err.startswith("pass 2/2: 50 of 100 done, 2 per second, 1 min left")


def test_only_the_first_process_writes_unless_it_works_for_all(clock, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    run(clock, 20, 1.0)
    assert capsys.readouterr().err == ""
    run(clock, 20, 1.0, every_process=True)
    assert capsys.readouterr().err.startswith("checking images: 10 of 20 done")


def test_an_interrupted_job_claims_no_end(clock, capsys):
    def steps():
        clock[0] += 11
        yield 1
        raise KeyError

    with pytest.raises(KeyError):
        list(show_progress(steps(), "copying images", 3))
    assert capsys.readouterr().err.splitlines() == [
        "copying images: 1 of 3 done, 5.5 per minute, 1 min left"
    ]


def test_a_terminal_shows_a_bar_and_no_lines(clock, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich a terminal
    run(clock, 20, 1.0)
    shown = capsys.readouterr().err
    assert "checking images" in shown
    assert "━" in shown
    assert "per second" not in shown


def test_a_line_keeps_its_width_off_a_terminal(capsys):
    make_console().print("x" * 130)
    make_console(stderr=True).print("y" * 130)
    assert capsys.readouterr() == ("x" * 130 + "\n", "y" * 130 + "\n")
    assert not sys.stdout.isatty()


def test_a_path_below_the_working_directory_is_shown_relative_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(short_path(tmp_path / "runs/a")) == "runs/a"
    assert short_path(tmp_path.parent) == tmp_path.parent
