"""`slurm/cluster.env`: what a cluster is called by and allows. Shell files source it; commands read it here."""

from __future__ import annotations

import shlex
from pathlib import Path

from mecellem.errors import UserError

ARRAY_JOBS = 1000  # jobs in one array where a site names no number; MaxArraySize is 1,001 unless administrators changed it
_NEEDED = ("PARTITION", "TIME")


def read_site(path: Path) -> dict[str, str]:
    """The KEY=VALUE lines of a site file, quoted as a shell would have them.

    PARTITION and TIME are needed; ACCOUNT, QOS, CPUS_PER_TASK, MEM_PER_CPU_GB, ARRAY_JOBS, ENV_COMMAND and MAIL_USER are used.
    Raises `UserError` for a file that is missing or lacks what is needed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--site {path} cannot be read ({error.strerror}): give a file with PARTITION=... and TIME=..."
        ) from None
    site: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}: write KEY=VALUE, with quotes around spaces") from None
        for word in words:
            key, equals, value = word.partition("=")
            if equals:
                site[key] = value
    for key in _NEEDED:
        if not site.get(key):
            raise UserError(f"{path}: {key}= is missing: Slurm needs a partition and a time limit, such as TIME=08:00:00")
    for key in ("CPUS_PER_TASK", "MEM_PER_CPU_GB", "ARRAY_JOBS"):
        if not site.get(key, "1").isdigit() or int(site.get(key, "1")) < 1:
            raise UserError(f"{path}: {key}={site[key]}: a whole number above 0 is needed")
    return site


def array_jobs(site: dict[str, str]) -> int:
    """How many jobs an array may have here."""
    return int(site.get("ARRAY_JOBS", ARRAY_JOBS))


def refuse_long_array(name: str, jobs: int, site: dict[str, str]) -> None:
    """Raise `UserError` for an array of more jobs than the site takes."""
    if jobs > array_jobs(site):
        raise UserError(
            f"{name}: {jobs:,} jobs in one array, and the site takes {array_jobs(site):,} (ARRAY_JOBS): ask for fewer, or "
            "raise ARRAY_JOBS where `scontrol show config` has a larger MaxArraySize and the QOS lets you submit so many"
        )


def site_options(site: dict[str, str]) -> list[str]:
    """The options of sbatch that a site decides."""
    named = {"account": site.get("ACCOUNT"), "partition": site.get("PARTITION"), "qos": site.get("QOS")}
    return [f"--{name}={value}" for name, value in named.items() if value]
