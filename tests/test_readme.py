"""The README is executed: what it shows is what the commands print."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from ifspace.cli.main import main

README = Path(__file__).parents[1] / "README.md"
CONSOLE = re.findall(r"```console\n(.*?)```", README.read_text(), flags=re.DOTALL)


def runs() -> list[tuple[str, str]]:
    """Return each command of the console blocks with the output shown below it."""
    return [
        (command, shown)
        for block in CONSOLE
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE)
    ]


def test_commands_print_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(runs()) >= 3
    for command, shown in runs():
        program, *arguments = shlex.split(command)
        assert program == "ifspace"
        with pytest.raises(SystemExit, match=r"^0$"):
            main(arguments)
        assert capsys.readouterr().out == shown, command


def test_python_examples_run() -> None:
    failed, tried = doctest.testfile(str(README), module_relative=False)
    assert tried >= 4
    assert failed == 0


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_make_targets_exist() -> None:
    makefile = (README.parent / "Makefile").read_text()
    targets = set(re.findall(r"(?m)(?:`|^)make ([a-z-]+)", README.read_text()))
    assert {"enumerate", "test"} <= targets
    assert [target for target in targets if f"\n{target}:" not in makefile] == []
