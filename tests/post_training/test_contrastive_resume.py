"""A training that is killed, stopped and damaged goes on to the very bytes of one that ran through."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time

import pytest
from post_train import command, environment, post_train

from mecellem.errors import UserError
from mecellem.files import sha256_of
from post_training.contrastive import TRAINING_RECORD, ContrastiveSettings, train_contrastive
from post_training.training.unfinished import Unfinished, step_of

SETTINGS = ["--steps", "60", "--batch-size", "16", "--train-seq-length", "32", "--checkpoint-every", "4", "--device", "cpu"]


def words(model, data, out):
    return ["contrastive", model, "--data", data, "--out", out, *SETTINGS]


def whole(unfinished):
    """Steps of the checkpoints that are whole."""
    return sorted(step_of(path.parent) for path in unfinished.folder.glob("checkpoint-*/complete.json"))


def stop_after(arguments, unfinished, step, number):
    """Start the command, send it `number` once a checkpoint of `step` or later is whole; its exit code."""
    process = subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.monotonic() + 240
        while not any(found >= step for found in whole(unfinished)):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.005)
        process.send_signal(number)
        said = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.slow
def test_killed_and_stopped_and_the_same_bytes(dropout_model, triplet_file, tmp_path):
    post_train(*words(dropout_model, triplet_file, tmp_path / "through"))
    out = tmp_path / "out"
    arguments, unfinished = words(dropout_model, triplet_file, out), Unfinished(out)

    code, _ = stop_after(arguments, unfinished, 8, signal.SIGKILL)
    assert code == -signal.SIGKILL and not out.exists()
    killed_at = whole(unfinished)[-1]
    torn = unfinished.folder / "checkpoint-59"  # as if killed while saving
    shutil.copytree(unfinished.folder / f"checkpoint-{killed_at}", torn)
    (torn / "complete.json").unlink()
    (torn / "optimizer.pt").write_bytes(b"half")

    code, said = stop_after(arguments, unfinished, killed_at + 4, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM and "stopped and saved" in said and not out.exists()
    stopped_at = whole(unfinished)[-1]
    assert killed_at < stopped_at < 59 and len(whole(unfinished)) <= 2 and not torn.exists()

    post_train(*arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "through"]
    for name in ("model.safetensors", "loss.csv", "README.md", "config.json", "modules.json"):
        assert sha256_of(out / name) == sha256_of(tmp_path / "through" / name), name
    records = [json.loads((folder / TRAINING_RECORD).read_text()) for folder in (out, tmp_path / "through")]
    assert records[0]["result"]["losses"] == records[1]["result"]["losses"]
    assert records[0]["speed"]["tokens"] == records[1]["speed"]["tokens"]


def saved_half_way(model, data, out, settings):
    """As a kill leaves it: the checkpoint of step 2 of a training of 4 steps, and no result."""
    from post_training.training.trainer import Watch

    class Killed(BaseException):
        pass

    def kill(watch, args, state, control, **_):
        original(watch, args, state, control)
        raise Killed

    original = Watch.on_save
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Watch, "on_save", kill)
        train_contrastive(model, out, data, settings, checkpoint_every=2, device="cpu")


def test_checkpoints_of_another_training_are_refused(small_model, triplet_set, tmp_path):
    settings = {"steps": 4, "batch_size": 8}
    saved_half_way(small_model, triplet_set, tmp_path / "out", ContrastiveSettings(**settings))
    assert whole(Unfinished(tmp_path / "out")) == [2]
    with pytest.raises(UserError, match=r"out\.unfinished holds checkpoints of a training with other --lr and --steps: give"):
        train_contrastive(small_model, tmp_path / "out", triplet_set, ContrastiveSettings(steps=5, batch_size=8, lr=1e-3))
    result = train_contrastive(
        small_model, tmp_path / "out", triplet_set, ContrastiveSettings(**settings), tensorboard=tmp_path / "tb", device="cpu"
    )
    assert len(result.losses) == 4 and not (tmp_path / "out.unfinished").exists()
    again = train_contrastive(small_model, tmp_path / "again", triplet_set, ContrastiveSettings(**settings), device="cpu")
    assert again.losses == result.losses
