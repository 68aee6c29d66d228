from pathlib import Path

import pytest

from mecellem.errors import UserError
from megatron_recipes.retention import KEEP, keep, kept, remove_old


def make(run: Path, *steps: int) -> None:
    for step in steps:
        folder = run / "checkpoints" / f"step_{step:07d}"
        folder.mkdir(parents=True)
        (folder / "weights").write_text("w")


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_the_newest_and_the_chosen_stay(tmp_path: Path):
    make(tmp_path, 5, 10, 15, 20, 10_000_000)
    (tmp_path / "checkpoints" / "latest").write_text("step_10000000\n")
    keep(tmp_path / "checkpoints" / "step_0000010", "chosen by mecellem select")
    assert remove_old(tmp_path, 2) == ["step_0000005", "step_0000015"]
    assert names(tmp_path) == [KEEP, "latest", "step_0000010", "step_0000020", "step_10000000"]
    assert remove_old(tmp_path, 2) == []


def test_a_later_choice_releases_the_earlier_one(tmp_path: Path):
    make(tmp_path, 1, 2, 3)
    keep(tmp_path / "checkpoints" / "step_0000001", "mine")
    keep(tmp_path / "checkpoints" / "step_0000002", "chosen by a")
    keep(tmp_path / "checkpoints" / "step_0000003", "chosen by b", instead_of="chosen by")
    assert kept(tmp_path) == {"step_0000001": "mine", "step_0000003": "chosen by b"}
    written = (tmp_path / "checkpoints" / KEEP).stat().st_mtime_ns
    keep(tmp_path / "checkpoints" / "step_0000003", "chosen by b", instead_of="chosen by")
    assert (tmp_path / "checkpoints" / KEEP).stat().st_mtime_ns == written
    assert remove_old(tmp_path, 1) == ["step_0000002"]


@pytest.mark.parametrize("content", ["[]", '{"step_0000001": 1}', "{", '"a"'])
def test_a_broken_file_removes_nothing(content: str, tmp_path: Path):
    make(tmp_path, 1, 2, 3)
    (tmp_path / "checkpoints" / KEEP).write_text(content)
    with pytest.raises(UserError, match=r"checkpoints/keep.json must hold one object"):
        remove_old(tmp_path, 1)
    assert len(names(tmp_path)) == 4


def test_a_killed_removal_leaves_nothing_that_looks_like_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make(tmp_path, 1, 2)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("megatron_recipes.retention.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_old(tmp_path, 1)
    assert names(tmp_path) == [".step_0000001.tmp", "step_0000002"]
