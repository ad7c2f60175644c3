from collections.abc import Callable

import pytest

import ifspace.cli.progress as progress

PAST_THE_CAP = 9 * 4097 + 4097**2  # what DW+PW costs at 4097 channels


def test_the_answer_speaks_of_channels(run: Callable) -> None:
    text = run("groups", "DW+RPW+RPW", "--budget", 1600, "--multiple", 8).out
    lines = text.splitlines()
    assert lines[0] == "Widest DW+RPW+RPW within 1,600 parameters: 64 channels"
    assert lines[-2:] == [
        "status  optimal, proven: no wider multiple of 8 fits",
        "bound   64 channels, no wider multiple of 8 fits; 1,600 parameters, the fewest there",
    ]
    said = run("groups", "DW+RPW+RPW", "--budget", 1600, "--format", "json").json
    assert said["message"] == "proven: no wider block fits"


def test_where_the_widths_end_the_search_all_says_so(run: Callable) -> None:
    ended = run("groups", "DW+PW", "--budget", PAST_THE_CAP)
    assert ended.out.startswith(
        f"Widest DW+PW within {PAST_THE_CAP:,} parameters, of widths up to 4096: 4096 channels\n"
    )
    assert "optimal, proven: no wider block fits, of widths up to 4096\n" in ended.out
    said = run("groups", "DW+PW", "--budget", "100M", "--format", "json").json
    assert said["message"] == "proven: no wider block fits, of widths up to 4096"
    assert "up to" not in run("groups", "DW+PW", "--budget", PAST_THE_CAP - 1).out
    ended = run("groups", "GC+GPW", "--budget", "3M", "--multiple", 512)
    assert ended.status == 3
    assert "proven: no width up to 4096 has a legal choice" in ended.err
    assert ended.err.count("\n") == 1


def test_there_is_a_bar_over_the_widths(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(
        progress.ProgressBar, "__call__", lambda self, done, total: told.append((done, total))
    )
    run("groups", "GC+GPW", "--budget", 5000)
    assert len(told) > 3
    assert told == [(n, len(told)) for n in range(len(told))]
