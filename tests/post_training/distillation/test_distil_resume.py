"""A distillation that is killed, stopped and damaged goes on to the bytes of one that ran through; two ranks train as one."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import numpy as np
import pytest
from post_train import command, environment, post_train
from safetensors.numpy import load_file
from tiny_models import write_model

from mecellem.errors import UserError
from mecellem.files import sha256_of
from post_training.distillation.settings import DistillationSettings
from post_training.distillation.train import train_distillation
from post_training.distillation.vectors import make_vectors
from post_training.training.unfinished import Unfinished, step_of

FLAGS = ["--steps", 60, "--batch-size", 16, "--lr", "0.02", "--held-out", "0.1", "--dropout", "0.1", "--device", "cpu"]
FLAGS += ["--evaluate-every", 3]


def words(student, vectors, out, *more):
    return ["distillation.train", "--student", student, "--vectors", vectors, "--out", out, *FLAGS, *more]


def whole(unfinished):
    """Steps of the checkpoints that are whole."""
    return sorted(step_of(path.parent) for path in unfinished.folder.glob("checkpoint-*/complete.json"))


def stop_after(arguments, unfinished, step, number):
    """Start the command, send it `number` once a checkpoint of `step` or later is whole; its exit code and words."""
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
def test_killed_and_stopped_and_the_same_bytes(student, vectors, tmp_path):
    """With dropout, whose random stream goes on, too; the best weights so far must outlive both ends."""
    every = ["--checkpoint-every", 4]
    post_train(*words(student, vectors, tmp_path / "through", *every))
    out = tmp_path / "out"
    arguments, unfinished = words(student, vectors, out, *every), Unfinished(out)

    code, _ = stop_after(arguments, unfinished, 8, signal.SIGKILL)
    assert code == -signal.SIGKILL and not out.exists()
    killed_at = whole(unfinished)[-1]
    best = unfinished.folder / "held_out_best.safetensors"
    best.unlink()  # torn off by the power cut: the checkpoint has its own
    best.write_bytes(b"half")

    code, said = stop_after(arguments, unfinished, killed_at + 4, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM and "stopped and saved" in said and not out.exists()
    assert killed_at < whole(unfinished)[-1] < 60

    post_train(*arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "through"]
    for name in ("model.safetensors", "metrics.jsonl", "README.md", "distillation.png", "config.json", "modules.json"):
        assert sha256_of(out / name) == sha256_of(tmp_path / "through" / name), name
    records = [json.loads((folder / "distillation.json").read_text()) for folder in (out, tmp_path / "through")]
    for record in records:
        del record["result"]["seconds"], record["speed"]
    assert records[0] == records[1]


def interrupted(student, vectors, out, settings):
    """As a kill leaves it: the checkpoint of step 2, and no result."""
    from post_training.distillation.trainer import DistillationWatch

    class Killed(BaseException):
        pass

    def kill(watch, args, state, control, **_):
        original(watch, args, state, control)
        raise Killed

    original = DistillationWatch.on_save
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(DistillationWatch, "on_save", kill)
        train_distillation(student, vectors, out, settings, checkpoint_every=2, device="cpu")


def test_other_vectors_or_settings_at_resume_are_refused(student, teacher, vectors, text_file, tmp_path):
    settings = DistillationSettings(steps=4, batch_size=8)
    out = tmp_path / "out"
    interrupted(student, vectors, out, settings)
    assert whole(Unfinished(out)) == [2]
    other = tmp_path / "other"
    make_vectors(teacher, [text_file], other, max_length=32, device="cpu")
    with pytest.raises(UserError, match=r"out\.unfinished holds checkpoints of a training with other vectors: give the same"):
        train_distillation(student, other, out, settings, device="cpu")
    with pytest.raises(UserError, match="with other student: give the same"):
        train_distillation(teacher, vectors, out, settings, device="cpu")
    with pytest.raises(UserError, match="with other --loss and --lr: give the same"):
        train_distillation(student, vectors, out, DistillationSettings(steps=4, batch_size=8, lr=1, loss="mse"), device="cpu")
    train_distillation(student, vectors, out, settings, device="cpu")
    assert not (tmp_path / "out.unfinished").exists()
    train_distillation(student, vectors, tmp_path / "again", settings, device="cpu")
    assert sha256_of(out / "model.safetensors") == sha256_of(tmp_path / "again" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cosine", "relational"])
def test_two_ranks_train_as_one(loss, sample_tokenizer, vectors, tmp_path):
    still = write_model(tmp_path / "still", sample_tokenizer, seed=2, layers=1, dropout=0.0)
    flags = ["--steps", 6, "--batch-size", 16, "--lr", "1e-3", "--held-out", "0.1", "--loss", loss, "--device", "cpu"]
    flags += ["--mini-batch-size", 4] if loss == "cosine" else []
    outs = []
    for ranks in (1, 2):
        outs.append(tmp_path / f"ranks{ranks}")
        base = ["distillation.train", "--student", still, "--vectors", vectors, "--out", outs[-1]]
        done = post_train(*base, *flags, ranks=ranks)
        assert done.stdout.count("distillation ─") == 1, "one rank speaks"
    one, two = (json.loads((out / "distillation.json").read_text()) for out in outs)
    assert (one["speed"]["ranks"], two["speed"]["ranks"]) == (1, 2)
    assert one["speed"]["tokens"] == two["speed"]["tokens"]
    lines = [[json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()] for out in outs]
    for alone, shared in zip(*lines, strict=True):
        assert alone == pytest.approx(shared, rel=2e-3)
    before, alone, shared = (load_file(folder / "model.safetensors") for folder in (still, *outs))
    for name, array in alone.items():
        moved = np.abs(array - before[name]).max()
        assert np.abs(array - shared[name]).max() < 0.05 * max(moved, 1e-3), name


def test_a_batch_that_ranks_or_parts_cannot_share_is_refused(student, vectors, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--mini-batch-size 3 does not divide 16, a rank's share"):
        train_distillation(student, vectors, tmp_path / "out", DistillationSettings(batch_size=16, mini_batch_size=3))
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "3"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="--batch-size 16 is shared by 3 ranks: give a multiple of 3"):
        train_distillation(student, vectors, tmp_path / "out", DistillationSettings(batch_size=16))
