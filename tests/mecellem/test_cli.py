import errno
import importlib
import os
import re
import signal
import subprocess
import sys
import time
import types

import pytest

from mecellem import __version__, cli
from mecellem.errors import UserError


def mecellem(*words, **options):
    return subprocess.run([sys.executable, "-m", "mecellem", *words], capture_output=True, text=True, timeout=60, **options)


@pytest.fixture
def command(monkeypatch):
    """Registers a command `try` that runs the given function."""

    def register(function):
        module = types.ModuleType("try_it")
        module.main = function
        monkeypatch.setitem(sys.modules, "try_it", module)
        monkeypatch.setitem(cli.COMMANDS, ("try",), ("try_it:main", "for the test"))

    return register


def raising(error):
    def main(argv):
        raise error

    return main


def test_help_is_fast_and_lists_every_command():
    best = min(timed_help() for _ in range(5))
    assert best < 0.3
    text = mecellem("--help").stdout
    for words in cli.COMMANDS:
        assert " ".join(words) in text


def timed_help():
    started = time.perf_counter()
    assert mecellem("--help").returncode == 0
    return time.perf_counter() - started


def test_help_imports_nothing_heavy():
    code = "import sys; from mecellem.cli import main; main(['--help']); print([m for m in sys.modules], file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stderr
    for heavy in ("numpy", "torch", "rich", "tyro", "pydantic"):
        assert f"'{heavy}'" not in loaded


def test_version_and_no_words(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    assert cli.main([]) == 0
    assert "usage: mecellem COMMAND" in capsys.readouterr().out


def test_every_command_exists():
    for target, _ in cli.COMMANDS.values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function)), target


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["trian"], "`mecellem trian` is not a command: did you mean `mecellem train`?"),
        (["yok"], "`mecellem yok` is not a command: `mecellem --help` lists them"),
        (["evaluate", "retrival"], "there is no such path; did you mean `mecellem evaluate retrieval`?"),
        (["convert"], "needs one more word: convert export, convert import"),
        (["convert", "sideways"], "needs one more word"),
    ],
)
def test_unknown_commands(argv, sentence, capsys):
    assert cli.main(argv) == 2
    assert sentence in capsys.readouterr().err


def test_the_rest_of_the_words_goes_to_the_command(command):
    seen = []
    command(lambda argv: seen.append(argv))
    assert cli.main(["try", "--flag", "1"]) == 0
    assert seen == [["--flag", "1"]]


def test_a_commands_code_is_passed_on(command):
    command(lambda argv: 7)
    assert cli.main(["try"]) == 7


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UserError("a.txt, line 3: not UTF-8"), 2, "mecellem: a.txt, line 3: not UTF-8\n"),
        (KeyboardInterrupt(), 130, "mecellem: interrupted\n"),
        (ModuleNotFoundError("no", name="torch.nn"), 2, "'torch' is not installed: pip install"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 2, "mecellem: runs/x: No space left on device\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/etc/x"), 2, "mecellem: /etc/x: Permission denied\n"),
    ],
)
def test_errors_are_one_sentence(command, capsys, error, code, sentence):
    command(raising(error))
    assert cli.main(["try"]) == code
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("bug"), FileNotFoundError(2, "No such file"), AssertionError()])
def test_our_own_bugs_keep_their_traceback(command, error):
    command(raising(error))
    with pytest.raises(type(error)):
        cli.main(["try"])


def test_a_missing_module_of_ours_is_a_bug(command):
    command(raising(ModuleNotFoundError("no", name="conversion.gone")))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["try"])


def test_ctrl_c_while_a_dataclass_is_made_is_code_130(tmp_path):
    """Under `python -m`, as ranks are started: Python would end by the signal itself, which is code -2 for who started it."""
    (tmp_path / "dies.py").write_text(
        """
import sys, types
from mecellem import cli
def main(argv):
    exec("raise KeyboardInterrupt")
sys.modules['try_it'] = types.SimpleNamespace(main=main)
cli.COMMANDS[('try',)] = ('try_it:main', '')
sys.exit(cli.main(['try']))
"""
    )
    done = subprocess.run([sys.executable, "-m", "dies"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "mecellem: interrupted\n")


def test_sigterm_runs_the_cleanup(tmp_path):
    code = """
import sys, time, types
from mecellem import cli
from mecellem.files import atomic_write
def main(argv):
    with atomic_write('a.txt') as handle:
        handle.write('half')
        print('writing', flush=True)
        time.sleep(60)
sys.modules['try_it'] = types.SimpleNamespace(main=main)
cli.COMMANDS[('try',)] = ('try_it:main', '')
sys.exit(cli.main(['try']))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    assert list(tmp_path.iterdir())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_sigterm_while_the_interpreter_ends_is_no_traceback():
    """srun ends the ranks beside one that refuses; libraries' exit handlers may still be at work then."""
    code = """
import atexit, sys, time, types
from mecellem import cli
sys.modules['try_it'] = types.SimpleNamespace(main=lambda argv: 0)
cli.COMMANDS[('try',)] = ('try_it:main', '')
def end():
    print('ending', flush=True)
    time.sleep(60)
atexit.register(end)
sys.exit(cli.main(['try']))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ending\n"
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert error == ""


def test_the_help_of_a_group_lists_its_commands(capsys):
    assert cli.main(["prepare", "--help"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^  prepare merge +\S", said, re.MULTILINE) and "tokenizer train" not in said


def test_a_reader_that_goes_away():
    process = subprocess.Popen(
        [sys.executable, "-m", "mecellem", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.close(process.stdout.fileno())
    error = process.stderr.read()
    assert process.wait(timeout=30) == 141
    assert error == ""
    process.stderr.close()


def test_a_rank_that_fails_beside_one_that_refuses_says_nothing(tmp_path, monkeypatch, capsys):
    def fail(argv):
        raise RuntimeError("a collective call ended")

    monkeypatch.setattr(cli, "run", fail)
    monkeypatch.setenv("MECELLEM_REFUSAL", str(tmp_path / "refusal.txt"))
    (tmp_path / "refusal.txt").write_text("the disk is full\n")
    assert cli.main([]) == 2
    assert capsys.readouterr().err == ""
    (tmp_path / "refusal.txt").unlink()
    with pytest.raises(RuntimeError, match="collective"):  # alone, it is told
        cli.main([])


def test_wrong_flags_are_a_refusal_as_well(tmp_path, monkeypatch, capsys):
    """So that a misspelt flag does not send a job back into the queue."""
    monkeypatch.setenv("MECELLEM_REFUSAL", str(tmp_path / "refusal.txt"))
    with pytest.raises(SystemExit) as left:
        cli.main(["prepare", "merge", "--outt", "x"])
    assert left.value.code == 2 and "--outt" in capsys.readouterr().err
    refusal = (tmp_path / "refusal.txt").read_text()
    assert refusal == "wrong flags, which the output above names: mecellem prepare merge --outt x\n"
    (tmp_path / "refusal.txt").unlink()
    with pytest.raises(SystemExit):
        cli.main(["prepare", "merge", "--help"])
    assert not (tmp_path / "refusal.txt").exists()
