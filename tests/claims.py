"""What a text claims of the information field beyond the claims of ifspace."""

import re
from typing import Final

from ifspace.catalogue.evidence import CLAIMS

# Words that would claim more, unless a sentence denies them.
_MORE: Final = re.compile(
    r"(?:larger|greater|wider|full|more|higher) (?:information )?(?:field|energy|gain|score)s?"
    r"[^.|]*\b(?:better|more accurate|higher accuracy|accuracy)\b",
    re.IGNORECASE,
)
_DENIES: Final = re.compile(r"\b(?:no|not|never|none|nothing|whether|how)\b", re.IGNORECASE)


def claims_of(text: str) -> list[str]:
    """Return the sentences that claim that a larger field is a better network."""
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]*>|\n[ *-]+", " ", text))
    for claim in CLAIMS:
        plain = plain.replace(claim, "")
    sentences = re.split(r"(?<=[.:;])\s", plain)
    return [text for text in sentences if _MORE.search(text) and not _DENIES.search(text)]
