"""The comparison of blocks with those of another checkout."""

from pathlib import Path

import pytest

from benchmarks import blocks_before
from benchmarks.blocks_before import rows, summary


@pytest.mark.slow
def test_a_block_is_timed_in_the_version_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of the package in the folder sleeps in every call."""
    (tmp_path / "ifspace" / "nn").mkdir(parents=True)
    (tmp_path / "ifspace" / "bench").mkdir()
    (tmp_path / "ifspace" / "__init__.py").touch()
    (tmp_path / "ifspace" / "bench" / "machine.py").write_text("def keep_memory(): pass\n")
    source = "import time, torch\n\n\ndef build(block, channels):\n"
    source += "    class Sleeper(torch.nn.Module):\n        def forward(self, x):\n"
    source += "            time.sleep(0.01)\n\n    return Sleeper()\n"
    (tmp_path / "ifspace" / "nn" / "__init__.py").write_text(source)
    monkeypatch.setattr(blocks_before, "SIDES", (8,))
    monkeypatch.setattr(blocks_before, "TURNS", 2)
    table = list(rows(tmp_path, ["DW+PW"], threads=1))
    assert [row["batch"] for row in table] == [1, 16]
    for row in table:
        assert row["before us"] >= 10_000
        assert row["speed-up"] == pytest.approx(row["before us"] / row["fused us"], rel=0.02)
    assert summary(table).count("\n") == 3
