"""The shell files of slurm/: clean, and short enough to be edited by hand."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from training_runs import ROOT

from mecellem.site_file import COMMANDS, GENERIC, JOBS, read_site

FILES = sorted([*ROOT.glob("slurm/*.sbatch"), *ROOT.glob("slurm/*.sh"), *ROOT.glob("slurm/sites/*.env")])
SBATCH_FILES = [path for path in FILES if path.suffix == ".sbatch"]


def test_shellcheck_finds_nothing():
    if not shutil.which("shellcheck"):
        assert "shellcheck" not in os.environ.get("MECELLEM_REQUIRE", ""), "apt-get install shellcheck"
        pytest.skip("no shellcheck: `apt-get install shellcheck`")
    done = subprocess.run(["shellcheck", "-x", *map(str, FILES)], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SBATCH_FILES, ids=lambda path: path.name)
def test_a_job_can_be_edited_by_hand(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 80 and lines[0] == "#!/bin/bash" and lines[1].startswith("# sbatch ")
    options = [line for line in lines if line.startswith("#SBATCH")]
    assert any("--time=" in line for line in options) and any("--output=" in line for line in options)
    assert not any(re.search("--(account|partition|qos)", line) for line in options)  # those are the site's


@pytest.mark.parametrize("path", SBATCH_FILES, ids=lambda path: path.name)
def test_a_job_from_another_folder_says_so_and_does_nothing(path, tmp_path):
    (tmp_path / "mecellem").write_text("#!/bin/bash\ntouch began\n")
    (tmp_path / "mecellem").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", path, "a", "b"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=20)
    sentence = f"mecellem: {tmp_path} has no slurm/common.sh: submit this from the repository's root\n"
    assert (done.returncode, done.stderr) == (2, sentence) and not (tmp_path / "began").exists()


# set by Slurm, by our commands, by modules and the shell, or by the user for one job: not a site's
NOT_OF_SITES = (
    r"SLURM_\w+|MECELLEM_\w+|LOADEDMODULES|MODULESHOME|LMOD_PKG|OMP_NUM_THREADS|PATH|PWD|HOSTNAME|BASH_\w+|RUN|FOLDER"
)


def shell_variables():
    """Names that the shell files use, or need, and do not set themselves (X=${X:-default} and a message's X=$X set nothing)."""
    text = "\n".join(path.read_text() for path in FILES if path.suffix != ".env")
    used = set(re.findall(r"\$\{?#?([A-Z][A-Z_]{2,})", text))
    needed = set(" ".join(re.findall(r"^\s*need_keys ([A-Z_ ]+)", text, re.MULTILINE)).split())
    ours = set(re.findall(r"""(?:^|[\s;("'])([A-Z][A-Z_]{2,})\+?=(?!\\?"?\$\{?\1\b)""", text, re.MULTILINE))
    return {name for name in used - ours | needed if not re.fullmatch(NOT_OF_SITES, name)}


def test_every_variable_that_shell_files_take_from_the_site_is_a_legal_key():
    found = shell_variables()
    assert {"RUNTIME", "MAX_RESTARTS", "HANG_SECONDS", "CLIENT_SECONDS", "WATCH_SECONDS", "MASTER_ADDR"} <= found
    assert found <= {*COMMANDS, *JOBS}
    assert set(JOBS) <= found  # and none is legal that nothing reads


@pytest.mark.parametrize("path", sorted(ROOT.glob("slurm/sites/*.env")), ids=lambda path: path.name)
def test_every_site_reads_and_sets_what_jobs_use(path):
    site = read_site(path)
    ours = {"PARTITION", "TIME", "CPU_PARTITION", "CPU_QOS", "RUNTIME", "VENV", "MODULES", "IMAGE", "MOUNTS", "OFFLINE"}
    assert ours | {"NETWORK_INTERFACE", "MAX_RESTARTS", "MAX_IDLE_RESTARTS", "HANG_SECONDS"} <= site.keys()


def test_the_generic_site_says_what_every_key_means():
    lines = (ROOT / GENERIC).read_text().splitlines()
    for key in COMMANDS + JOBS:
        assert any(re.match(rf"(# )?{key}=", line) for line in lines), key


DEFINITION = ROOT / "slurm" / "mecellem.def"


def copied(text):
    """Source and destination of every line of %files; Apptainer drops a third word without a word about it."""
    section = re.search(r"^%files\n(.*?)^%", text, re.MULTILINE | re.DOTALL)[1]
    found = [line.split() for line in section.splitlines() if line.strip()]
    assert all(len(words) == 2 for words in found), found
    return found


def test_the_image_installs_all_packages_from_what_is_copied_into_it(tmp_path):
    text = DEFINITION.read_text()
    assert not any(
        line.lstrip().startswith("%") for line in text[text.index("cd /opt") : text.index("%environment")].splitlines()
    )
    for source, destination in copied(text):
        folder = tmp_path / destination.lstrip("/")
        if destination.endswith("/"):
            folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-fLr", source, f"{folder}/"], cwd=ROOT, check=True, timeout=60)  # as Apptainer does
    here = tmp_path / re.search(r"^\s+cd /(\S+)$", text, re.MULTILINE)[1]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "--target", str(tmp_path / "site"), "."]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    packages = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name not in ("tests", "benchmarks")]
    names = [path.relative_to(ROOT) for package in packages for path in package.rglob("*.py")]
    assert len(names) > 100 and [name for name in names if not (tmp_path / "site" / name).is_file()] == []
    for data in ("evaluation/report", "mecellem/page", "megatron_recipes/curricula"):
        there = {path.name for path in (ROOT / data).iterdir() if path.suffix in (".j2", ".css", ".js", ".yaml")}
        assert there and there <= {path.name for path in (tmp_path / "site" / data).iterdir()}
