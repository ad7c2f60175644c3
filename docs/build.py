"""Write anew what the documentation shows of the program: `make docs`.

docs/cli.md is made of the commands' own help; in README.md and docs/*.md the output below each
command of a `console` block is what the command prints now.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from ifspace.cli.main import cli

DOCS = Path(__file__).parent
PAGES = (DOCS.parent / "README.md", *sorted(DOCS.glob("*.md")))
CLI_PAGE = DOCS / "cli.md"
# Of the terminal that the outputs are for.
COLUMNS = 100
_HEAD = """# Command line

Written from `--help` by `make docs`; do not edit.

Data goes to stdout and nothing else does; progress and notes go to stderr, in whole lines but on a
terminal. Tables and texts are folded to the columns of the terminal, or to as many as the variable
`COLUMNS` of the environment says; a pipe or file without it gets whole lines. Amounts take suffixes
(`16k`, `5.1M`, `370M`), blocks are written as in [notation](notation.md).

| exit status | meaning |
|---|---|
| 0 | done (a feasible answer with a gap says its gap) |
| 1 | a worker process was killed, most often because memory ran out |
| 2 | bad input: one line with the fact, what was given, what is allowed, and the remedy |
| 3 | no feasible answer |
| 4 | time limit reached with no answer |
| 130 | interrupted: `bench` and `enumerate --out FOLDER` keep what is done, others keep nothing |
| 143 | ended by SIGTERM, as 130 |
"""
_BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", flags=re.DOTALL)


def cli_page() -> str:
    """Return the page of the command line: the program, then every command."""
    parts = [_HEAD, f"## ifspace\n\n```\n{_help_text(cli, 'ifspace')}\n```\n"]
    for name in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        parts.append(f"## {name}\n\n```\n{_help_text(command, f'ifspace {name}')}\n```\n")
    return "\n".join(parts)


def _help_text(command: click.Command, name: str) -> str:
    context = click.Context(
        command, info_name=name, terminal_width=92, help_option_names=["-h", "--help"]
    )
    return command.get_help(context)


def examples(text: str) -> list[tuple[str, str]]:
    """Return each command of the console blocks of a page with the output shown below it."""
    return [
        (command, output)
        for block in _BLOCK.findall(text)
        for command, output in re.findall(
            r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE
        )
    ]


def output_of(line: str, folder: Path) -> str:
    """Return what a line of a console block prints: a command, perhaps `| head -n N` or tail."""
    command, *filters = line.split(" | ")
    program, *arguments = shlex.split(command)
    if program != "ifspace":
        raise ValueError(f"only ifspace is run, got {line!r}")
    done = subprocess.run(
        [sys.executable, "-m", "ifspace", *arguments],
        cwd=folder,
        env=os.environ | {"COLUMNS": str(COLUMNS)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines(keepends=True)
    for words in map(shlex.split, filters):
        if words[:2] not in (["head", "-n"], ["tail", "-n"]):
            raise ValueError(f"only head -n and tail -n are known, got {line!r}")
        lines = lines[: int(words[2])] if words[0] == "head" else lines[-int(words[2]) :]
    return "".join(lines)


def refreshed(text: str) -> str:
    """Return a page with the outputs that its commands have now, run in turn in one folder."""
    with tempfile.TemporaryDirectory() as folder:

        def run(block: re.Match[str]) -> str:
            commands = re.findall(r"^\$ (.*)\n", block[0], flags=re.MULTILINE)
            return "".join(f"$ {line}\n{output_of(line, Path(folder))}" for line in commands)

        return _BLOCK.sub(run, text)


def main() -> None:
    """Write all pages."""
    CLI_PAGE.write_text(cli_page(), encoding="utf-8")
    for page in PAGES:
        page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
