"""What a rank leaves as signs of life, and that it prints its stacks when asked."""

import os
import signal
import subprocess
import sys
import time

from megatron_recipes.engine import heartbeat
from megatron_recipes.engine.heartbeat import Heartbeat, clear


def test_the_step_and_its_beginning_are_written_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "SECONDS", 0.02)
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    with Heartbeat(tmp_path, 3) as alive:
        alive.enter(12)
        begun = time.time()
        end = time.monotonic() + 20
        while not alive.path.exists() or not alive.path.read_text().startswith("12 "):
            assert time.monotonic() < end
            time.sleep(0.01)
        step, since, host, pid = alive.path.read_text().split()
        assert alive.path == tmp_path / "heartbeat" / "rank_00003"
        assert (step, host, pid) == ("12", "n7", str(os.getpid())) and abs(int(since) - begun) <= 1
        written = alive.path.stat().st_mtime_ns
        time.sleep(0.2)
        assert alive.path.stat().st_mtime_ns > written  # a living process keeps its file young
    assert not alive.path.exists()


def test_whoever_looks_never_finds_an_empty_file(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "SECONDS", 0.0)
    with Heartbeat(tmp_path, 0) as alive:
        while not alive.path.exists() or not alive.path.read_bytes():
            time.sleep(0.001)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            assert alive.path.read_bytes().count(b"\n") == 1


def test_a_disk_that_is_full_does_not_end_a_rank(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "SECONDS", 0.02)
    with Heartbeat(tmp_path, 0) as alive:
        alive.path.unlink(missing_ok=True)
        alive.path.parent.rename(tmp_path / "gone")
        time.sleep(0.1)
        assert alive.thread.is_alive()


def test_ranks_of_an_earlier_start_are_forgotten(tmp_path):
    (tmp_path / "heartbeat").mkdir()
    (tmp_path / "heartbeat" / "rank_00009").write_text("1 1 n1 1\n")
    clear(tmp_path)
    assert not (tmp_path / "heartbeat").exists()
    clear(tmp_path)


def test_sigusr2_prints_stacks_and_the_process_goes_on():
    code = (
        "import sys, time; from megatron_recipes.engine.heartbeat import print_stacks_on_signal; print_stacks_on_signal(); "
        "print('ready', flush=True); sys.stdin.readline(); print('went on')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR2)
    time.sleep(0.5)
    out, err = process.communicate("go\n", timeout=60)
    assert out == "went on\n" and "most recent call first" in err
