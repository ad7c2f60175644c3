import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from claims import claims_of
from samples import EMPTY

from ifspace.catalogue.evidence import CLAIMS
from ifspace.errors import OutputError, SettingError
from ifspace.report import page
from ifspace.report.read import (
    PARTS,
    Results,
    chosen,
)

pytest.importorskip("vl_convert")


class Outline(HTMLParser):
    """Element names, ids, and addresses of a page; the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self.labels: list[str] = []
        self.last = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs) -> None:
        self.last = tag
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "action", "data", "srcset"):
                self.addresses.append(value)
            if name in ("for", "aria-labelledby"):
                self.labels.append(value)

    def handle_data(self, data: str) -> None:
        if self.last == "script":
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.last = ""


@pytest.fixture(scope="module")
def text(results: Results) -> str:
    return page.page(results, PARTS)


@pytest.mark.slow
def test_it_is_one_file_that_asks_the_network_for_nothing(text: str) -> None:
    outline = Outline(text)
    assert all(address.startswith(("#", "data:")) for address in outline.addresses)
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text.split("<script")[0]


@pytest.mark.slow
def test_it_makes_the_claims_and_no_more(text: str) -> None:
    prose = unescape(text.partition("<script")[0])
    assert all(claim in prose for claim in CLAIMS)
    assert claims_of(prose) == []


def test_its_links_and_labels_lead_somewhere(text: str) -> None:
    outline = Outline(text)
    assert len(set(outline.ids)) == len(outline.ids)
    targets = {address[1:] for address in outline.addresses if address.startswith("#")} | set(
        outline.labels
    )
    assert targets <= set(outline.ids)
    assert {part.name for part in PARTS if part.name != "designs"} <= set(outline.ids)


def test_no_placeholder_is_left(text: str) -> None:
    own = text.replace(page.LIBRARY, "")
    assert not re.search(r"\{\{[a-z]+\}\}", own)


def test_data_cannot_end_its_script(text: str) -> None:
    data, charts, library, own = Outline(text).scripts
    values = json.loads(data)
    assert "<b>&</b>" in values["sources"][0]["blocks"]["DW+PW"]
    assert "<b>" not in data
    assert json.loads(charts).keys() >= {"funnel-0", "layouts-0", "energy-0", "kernels-0"}
    assert "vegaEmbed" in library
    assert "DesignTable" in own


def test_cells_are_escaped(results: Results) -> None:
    row = {"table": "<i>&", "rows": 1, "match": 1, "misprint": 0}
    rows = {**results.rows, "reproduction.csv": (row,)}
    odd = Results(results.folder, results.catalogues, rows, (), ())
    text = page.page(odd, chosen(["reproduction"]))
    assert "<td>&lt;i&gt;&amp;</td>" in text


def test_the_same_results_are_the_same_page(results: Results, text: str) -> None:
    assert page.page(results, PARTS) == text


def test_missing_parts_are_named_on_the_page(results: Results, tmp_path: Path) -> None:
    bare = Results(tmp_path, results.catalogues, {}, (), ())
    text = page.page(bare, PARTS)
    ids = Outline(text).ids
    assert "funnel" in ids
    assert not {"kernels", "energy", "blocks"} & set(ids)
    assert 'href="#kernels"' not in text
    footer = text.partition("<footer>")[2].partition("</footer>")[0]
    message = (
        "kernels: there is no bench/DEVICE.csv; "
        f"`python -m ifspace.bench.kernels --out {tmp_path}/bench`"
    )
    assert f"{message} writes it." in footer


def test_unrecognised_files_are_named(results: Results) -> None:
    text = page.page(replace(results, unrecognised=("bench/own.csv",)), PARTS)
    assert "files that no part of the report shows: bench/own.csv." in text


def test_only_the_parts_asked_for(results: Results) -> None:
    ids = Outline(page.page(results, chosen(["funnel"]))).ids
    assert "funnel" in ids
    assert "energy" not in ids


def test_a_page_needs_a_catalogue(results: Results, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"a page needs a catalogue: got no catalogue-WIDTH"):
        page.page(Results(tmp_path, (), results.rows, (), ()), PARTS)


def test_an_empty_catalogue_is_a_page_too(tmp_path: Path) -> None:
    assert "<h1>" in page.page(Results(tmp_path, (EMPTY,), {}, (), ()), PARTS)


@pytest.mark.parametrize(
    ("version", "text"), [("unknown", "Written by ifspace. The"), ("1.2", "by ifspace 1.2. The")]
)
def test_an_unknown_version_is_not_printed(
    results: Results, monkeypatch: pytest.MonkeyPatch, version: str, text: str
) -> None:
    monkeypatch.setattr(page, "version", lambda: version)
    assert text in page.page(results, chosen(["funnel"])).partition("<footer>")[2]


def test_it_is_written_whole_or_not_at_all(results: Results, tmp_path: Path, text: str) -> None:
    page.write(results, PARTS, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == text
    with pytest.raises(OutputError, match="cannot be written"):
        page.write(results, PARTS, tmp_path / "nowhere" / "page.html")


@pytest.mark.slow
def test_the_catalogue_to_length_6_is_below_5_mb(record: Path) -> None:
    assert record.stat().st_size < 5_000_000
    assert "1,103 see all the pixels" in record.read_text()
