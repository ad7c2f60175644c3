"""The documentation is executed: what it shows is what the commands print."""

import doctest
import re
import sys
from pathlib import Path

import pytest

from ifspace.catalogue.design import Design
from ifspace.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
sys.path.insert(0, str(ROOT / "docs"))
import build  # noqa: E402

pages = pytest.mark.parametrize("page", build.PAGES, ids=lambda page: page.stem)


@pytest.mark.slow
@pages
def test_commands_print_the_documented_output(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert build.refreshed(text) == text, "run `make docs`"


@pages
def test_outputs_fit_a_terminal(page: Path) -> None:
    # What torch prints of a module is not ours to fold.
    wide = [
        line
        for _, output in build.examples(page.read_text(encoding="utf-8"))
        for line in output.splitlines()
        if len(line) > build.COLUMNS and not line.startswith("  (")
    ]
    assert wide == []


@pytest.mark.slow
@pages
def test_python_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testfile(str(page), module_relative=False)
    assert failed == 0


def test_there_are_examples_of_both_kinds() -> None:
    assert sum(len(build.examples(page.read_text())) for page in build.PAGES) >= 4
    assert README.read_text().count(">>> ") >= 6


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            anchors = {
                re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
                for heading in headings
            }
            assert anchor in anchors, link


@pages
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?m)(?:`|^)make ([a-z-]+)", page.read_text()))
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


def test_the_readme_is_short_and_names_every_command() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert {"enumerate", "test"} <= set(re.findall(r"(?m)^make ([a-z-]+)", text))
    assert [name for name in COMMANDS if f"`ifspace {name}" not in text] == []


def test_the_command_line_page_is_the_output_of_help() -> None:
    assert build.CLI_PAGE.read_text(encoding="utf-8") == build.cli_page(), "run `make docs`"


def test_every_column_of_the_catalogue_has_a_heading() -> None:
    concepts = (ROOT / "docs" / "concepts.md").read_text()
    columns = [name for name in Design.__dataclass_fields__ if name != "field"] + ["field"]
    assert [name for name in columns if f"\n### {name}\n" not in concepts] == []
