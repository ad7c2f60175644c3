"""The page of [Fog]'s funnel."""

import pytest

from experiments.fog_funnel import WIDTHS, funnel_row, page


def test_the_page(snapshot: object) -> None:
    assert (WIDTHS[0], WIDTHS[-1]) == (12, 128)
    assert page([funnel_row(channels) for channels in (12, 13, 14)], "`a command`") == snapshot


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "survivors", "narrow", "early_stop"),
    [(16, 8, 22, 16), (20, 8, 5, 16), (64, 8, 24, 16), (25, 7, None, 11), (35, 8, None, 15)],
)
def test_the_rows(channels: int, survivors: int, narrow: int | None, early_stop: int) -> None:
    row = funnel_row(channels)
    assert (row.compositions, row.kept, len(row.survivors)) == (5460, 1108, survivors)
    assert (row.merged.narrow, row.early_stop) == (narrow, early_stop)
    assert len(row.merged.designs) == 3
