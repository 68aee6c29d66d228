"""Site files: the shell's own reading of them is the measure, and what it would read otherwise is refused."""

import shlex
import string
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mecellem.errors import UserError
from mecellem.site_file import COMMANDS, JOBS, read_site

BASE = "PARTITION=gpu\nTIME=08:00:00\n"


def read(folder, text):
    path = folder / "site.env"
    path.write_text(text)
    return read_site(path)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("MAX_RESTART=5", r"line 3: unknown key `MAX_RESTART`: did you mean `MAX_RESTARTS`\?"),
        ("QoS=long", r"line 3: unknown key `QoS`: did you mean `QOS`\?"),
        ("account=me", r"line 3: unknown key `account`: did you mean `ACCOUNT`\?"),
        ("MODULES+=cuda", r"unknown key `MODULES\+`: did you mean `MODULES`\?"),
        (
            "SCRATCH_OF_MINE=/x",
            r"generic_h100\.env has them all; a variable of your own is set by `export SCRATCH_OF_MINE=VALUE`",
        ),
        ("QOS = long", "a shell wants no spaces around `=`: write QOS=VALUE"),
        ("ACCOUNT=$PROJECT", r"line 3: ACCOUNT=\$PROJECT: a shell puts something else in place of \$"),
        ('ACCOUNT="my_$PROJECT"', r"in place of \$"),
        ("ACCOUNT=`groups`", "in place of `"),
        ("VENV=~/venv", "in place of ~"),
        ("export ACCOUNT=$PROJECT", r"in place of \$"),
        ("QOS=a; MODULES=b", "in place of ;"),
        ("RUNTIME=docker", "RUNTIME=docker: it is one of venv, modules, apptainer, pyxis"),
        ("RUNTIME=", "it is one of venv, modules, apptainer, pyxis"),
        ("RUNTIME=apptainer\nIMAGE=", "RUNTIME=apptainer needs IMAGE="),
        ("RUNTIME=venv", "RUNTIME=venv needs VENV="),
        ("MAX_RESTARTS=many", "MAX_RESTARTS=many: a whole number from 0 is needed"),
        ("HANG_SECONDS=", "HANG_SECONDS=: a whole number above 0 is needed"),
        ("CPUS_PER_TASK=", "CPUS_PER_TASK=: a whole number above 0 is needed"),
        ("MAIL_USER='me", "line 3: No closing quotation"),
    ],
    ids=lambda value: value.partition("=")[0] if "line" not in value else "",
)
def test_what_would_cost_a_job_its_turn_is_refused_at_once(tmp_path, line, sentence):
    with pytest.raises(UserError, match=sentence):
        read(tmp_path, f"{BASE}{line}\n")


def test_lines_that_are_the_shells_alone_stay_legal(tmp_path):
    text = f"""{BASE}
# shellcheck disable=SC2034  don't mind
ENV_COMMAND='source "$HOME/env.sh"'   # a job's shell expands it, isn't that right
MAIL_USER=me\\$x
MOUNTS="$SCRATCH,/data" IMAGE=nvcr.io#nvidia/pytorch:25.09-py3
MEM_PER_CPU_GB=
MAX_RESTARTS=0
export SBATCH_ACCOUNT="$ACCOUNT" ${{QOS:+SBATCH_QOS="$QOS"}} NCCL_DEBUG=INFO
ulimit -n 4096
[ "$HOSTNAME" != login2 ] || umask 027
QOS=a
  QOS="b c"
"""
    assert read(tmp_path, text) == {
        "PARTITION": "gpu",
        "TIME": "08:00:00",
        "ENV_COMMAND": 'source "$HOME/env.sh"',
        "MAIL_USER": "me$x",
        "MOUNTS": "$SCRATCH,/data",
        "IMAGE": "nvcr.io#nvidia/pytorch:25.09-py3",
        "MEM_PER_CPU_GB": "",
        "MAX_RESTARTS": "0",
        "QOS": "b c",
    }


def test_a_key_has_one_meaning():
    assert len({*COMMANDS, *JOBS}) == len(COMMANDS + JOBS)


VALUE = st.text(string.ascii_letters + string.digits + " ,:/#=~$'\"\\`;&*é", max_size=12)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(VALUE, min_size=10, max_size=10))
def test_what_is_quoted_is_read_as_a_shell_reads_it(tmp_path, values):
    keys = ["ACCOUNT", "QOS", "CPU_PARTITION", "CPU_QOS", "ENV_COMMAND", "MAIL_USER", "MODULES", "VENV", "IMAGE", "MOUNTS"]
    path = tmp_path / "site.env"
    path.write_text(BASE + "".join(f"{key}={shlex.quote(value)} # c\n" for key, value in zip(keys, values, strict=True)))
    shown = "".join(f"printf '%s\\0' \"${key}\";" for key in keys)
    done = subprocess.run(["bash", "-c", f'. "$1"; {shown}', "-", str(path)], capture_output=True, timeout=20, check=True)
    by_shell = done.stdout.decode().split("\0")[:-1]
    assert by_shell == values == [read_site(path)[key] for key in keys]
