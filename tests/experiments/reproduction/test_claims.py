"""Claims in the text of the papers, against arithmetic by hand."""

import pytest

from experiments.reproduction.claims import Claim, claims
from experiments.reproduction.page import Outcome

CLAIMS = {(claim.paper, claim.printed, claim.text): claim for claim in claims()}


def claim_of(*printed: str) -> Claim:
    return next(claim for claim in CLAIMS.values() if claim.printed == printed)


@pytest.mark.parametrize(
    ("printed", "ours"),
    [
        ("65.38", 100 * (1 - 5.10 / 14.73)),
        ("54.15", 100 * (4 - 5.10 / 14.73 - 8.09 / 20.04 - 1.13 / 3.22 - 17.24 / 23.52) / 4),
        ("32.33", 100 * (4 - 24.39 / 34.02 - 27.38 / 39.33 - 1.23 / 3.32 - 21.89 / 23.71) / 4),
        ("1.18", (0.31 + 0.98 + 1.38 + 2.04) / 4),
        ("40.5", 100 * (1 - 0.66 / 1.11)),
        ("39.41", 100 * (1 - 14.34 / 23.67)),
        ("38.26", 100 * (1 - 2550 / 4130)),
        ("3.56", 91.61 - 88.05),
        ("16.7", 100 * (1 - 3.52 / 4.23)),
    ],
)
def test_claims_that_follow_from_the_tables(printed, ours):
    claim = claim_of(printed)
    assert claim.ours == pytest.approx((ours,), abs=1e-5)
    assert claim.verdict.outcome is Outcome.MATCH


@pytest.mark.parametrize("printed", [("3.7", "74", "16"), ("90.4",), ("2.54", "29.04")])
def test_claims_that_follow_from_none(printed):
    assert claim_of(*printed).verdict.outcome is Outcome.NO_READING


def test_claims_that_contradict_their_tables():
    wrong = [claim for claim in CLAIMS.values() if claim.verdict.outcome is Outcome.MISPRINT]
    assert {claim.printed for claim in wrong} == {("1.90",), ("3",)}
    assert "2.45" in claim_of("1.90").wrong
    assert claim_of("1.90").ours[0] == pytest.approx((1.71 + 1.77 + 5.47 + 0.86) / 4)
    assert "91.61 with 33%, 91.59 with 50%" in claim_of("3").wrong


def test_moves_in_words_lead_to_the_named_layouts():
    for printed in (("4", "1"), ("2", "1")):
        assert claim_of(*printed).verdict.outcome is Outcome.MATCH
