"""Run the real command line in a child process, as a user does."""

import os
import resource
import subprocess
import sys
from pathlib import Path


def mecellem(*arguments, cwd: Path, env=None, file_size_limit: int | None = None, timeout=120):
    """The finished process. With `file_size_limit` no file may grow past so many bytes: the disk is "full"."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))

    return subprocess.run(
        [sys.executable, "-m", "mecellem", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        preexec_fn=limit if file_size_limit else None,
    )


def refusal(done) -> str:
    """The one sentence of a command that refused its input: exit code 2, no traceback."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("mecellem: ")]
    assert len(sentences) == 1, done.stderr
    return sentences[0]
