import atexit
import gc
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ifspace.cli.main import COMMANDS, GARBAGE, main
from ifspace.errors import ARGUMENT, WorkerError

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = [sys.executable, "-m", "ifspace"]


def test_help_lists_the_commands_in_the_order_of_the_work(run: Callable) -> None:
    for arguments in ((), ("-h",), ("--help",)):
        ended = run(*arguments)
        assert (ended.status, ended.err) == (0, "")
        listed = ended.out.partition("Commands:\n")[2].split("\n")
        assert tuple(line.split()[0] for line in listed if line) == tuple(COMMANDS)
        assert "..." not in ended.out.partition("Commands:\n")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_shared_options(run: Callable, command: str) -> None:
    text = run(command, "-h").out
    for option in ("--format", "--out", "--quiet", "-h, --help"):
        assert option in text


def test_the_version_is_one_line(run: Callable) -> None:
    ended = run("--version")
    assert ended.status == 0
    assert ended.out.startswith("ifspace ")
    assert ended.out.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], ["No such command 'nothing'", "`ifspace --help`"]),
        (["--nothing"], ["No such option"]),
        (["show", "DW+PW"], ["Missing option '--channels'", "`ifspace show --help`"]),
        (["show"], ["Missing argument 'BLOCK'"]),
        (["kinds", "--format", "xml"], ["got 'xml'; allowed: table, json, csv, markdown, latex"]),
        (["kinds", "extra"], ["unexpected extra argument"]),
    ],
)
def test_wrong_usage_is_one_line(run: Callable, arguments: list[str], words: list[str]) -> None:
    run(*arguments).fails_with(*words)


@pytest.mark.slow
def test_help_takes_a_quarter_of_a_second_of_the_processor_at_most() -> None:
    def seconds() -> float:
        # Not the wall's time: others may be at work here.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*PYTHON, "--help"], capture_output=True, check=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(4)) < 0.25


def test_only_the_command_line_raises_the_garbage_collection_threshold(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    monkeypatch.setattr(gc, "set_threshold", lambda *thresholds: calls.append(thresholds))
    monkeypatch.setattr(atexit, "register", calls.append)
    assert run("--version").status == 0
    assert calls == []
    monkeypatch.setattr(sys, "argv", ["ifspace", "--version"])
    with pytest.raises(SystemExit, match=r"^0$"):
        main()
    assert calls == [GARBAGE, gc.freeze]


@pytest.mark.slow
def test_a_package_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('no LLVM here')", encoding="utf-8")
    run = subprocess.run(
        [*PYTHON, "enumerate", "--max-len", "2"],
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == (
        "ifspace: a package that ifspace needs cannot be imported: got no LLVM here; "
        "allowed: those with which it was installed; install ifspace again\n"
    )


@pytest.mark.slow
def test_a_closed_pipe_is_not_an_error() -> None:
    run = subprocess.Popen(
        [*PYTHON, "show", "DW+PW", "-C", "16", "--format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert run.stdout is not None
    run.stdout.close()
    assert run.stderr is not None
    assert run.stderr.read() == b""
    assert run.wait(60) == 0
    run.stderr.close()


@pytest.mark.slow
def test_a_full_disk_is_one_line() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PYTHON, "show", "DW+PW", "-C", "16"], stdout=full, stderr=subprocess.PIPE, cwd=ROOT
        )
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "ifspace: cannot write the output: No space left on device"
    ]


def test_a_lost_worker_has_a_status_of_its_own(run: Callable, monkeypatch) -> None:
    def lost(*arguments: object, **options: object) -> None:
        raise WorkerError.because(
            "lost", got=2, allowed=1, remedy=f"use fewer {ARGUMENT}", argument="jobs"
        )

    monkeypatch.setattr("ifspace.enumerate.search.enumerate_designs", lost)
    ended = run("enumerate", "-C", "8", "--max-len", "2")
    assert ended.status == 1
    assert ended.err == "ifspace: lost: got 2; allowed: 1; use fewer --jobs\n"


def test_a_file_that_is_replaced_keeps_its_mode(run: Callable, tmp_path: Path) -> None:
    file = tmp_path / "kinds.csv"
    file.write_text("older")
    file.chmod(0o640)
    assert run("kinds", "--out", str(file)).status == 0
    assert file.read_text().startswith("kind,")
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.slow
def test_control_c_ends_with_130_and_one_line(tmp_path: Path) -> None:
    code = (
        "import ifspace.enumerate.search as s, signal, time\n"
        # A background job is started with it ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def wait(*a, **k):\n    print('waiting', flush=True)\n    time.sleep(60)\n"
        "s.enumerate_designs = wait\n"
        "from ifspace.cli.main import main\n"
        f"main(['enumerate', '-C', '8', '--out', {str(tmp_path / 'a.parquet')!r}])"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert run.stdout is not None
    assert run.stdout.readline() == b"waiting\n"
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out) == (130, b"")
    assert err == b"ifspace: interrupted\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_control_c_does_not_wait_for_a_thread_that_never_ends() -> None:
    code = (
        "import click, threading\n"
        "from ifspace.cli.main import main\n"
        "@click.command()\n"
        "def work():\n"
        "    threading.Thread(target=threading.Event().wait).start()\n"
        "    print('written', end='')\n"
        "    raise KeyboardInterrupt\n"
        "main(program=work)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert (done.returncode, done.stdout) == (130, "written")
    assert done.stderr == "ifspace: interrupted\n"


@pytest.mark.slow
def test_a_terminal_without_the_characters_still_gets_its_drawing() -> None:
    done = subprocess.run(
        [*PYTHON, "show", "DW+PW", "-C", "4"],
        capture_output=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"????" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no /dev/zero here")
@pytest.mark.parametrize(
    "arguments",
    [
        "best FILE",
        "analyze FILE.py:make",
        "layout --stages 8,4 --depths 1,1 --latency FILE --latency-budget-ms 3",
    ],
)
def test_a_device_that_never_ends_is_not_read(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("FILE", "FILE.py"):
        (tmp_path / name).symlink_to("/dev/zero")
    run(*arguments.split()).fails_with("a device, not a file")
