"""`slurm/cluster.env`: what a cluster is called by and allows. Shell files source it; commands read it here."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from mecellem.errors import UserError

ARRAY_JOBS = 1000  # jobs in one array where a site names no number; MaxArraySize is 1,001 unless administrators changed it
GENERIC = "slurm/sites/generic_h100.env"  # has every key with its meaning
RUNTIMES = {"venv": "VENV", "modules": "", "apptainer": "IMAGE", "pyxis": "IMAGE"}  # and the key that each cannot do without

# Every key that a site file may have. Commands pass values of the first group on as they stand; those of the second are used
# by shell files alone.
COMMANDS = (
    "ACCOUNT",
    "PARTITION",
    "QOS",
    "CPU_PARTITION",
    "CPU_QOS",
    "TIME",
    "CPUS_PER_TASK",
    "MEM_PER_CPU_GB",
    "ARRAY_JOBS",
    "ENV_COMMAND",
    "MAIL_USER",
    "RUNTIME",
    "VENV",
    "MODULES",
)
JOBS = (
    "IMAGE",
    "MOUNTS",
    "OFFLINE",
    "NETWORK_INTERFACE",
    "MASTER_ADDR",
    "MAX_RESTARTS",
    "MAX_IDLE_RESTARTS",
    "HANG_SECONDS",
    "WATCH_SECONDS",
    "CLIENT_SECONDS",
    "RETRY_SECONDS",
)
_NEEDED = ("PARTITION", "TIME")
_ABOVE_ZERO = ("CPUS_PER_TASK", "MEM_PER_CPU_GB", "ARRAY_JOBS", *(key for key in JOBS if key.endswith("_SECONDS")))
_FROM_ZERO = ("MAX_RESTARTS", "MAX_IDLE_RESTARTS")
_MAY_BE_EMPTY = ("MEM_PER_CPU_GB",)  # nothing is sent then

_WORD = re.compile(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s'"\\])+""")
_PART = re.compile(r"""\\.|'[^']*'|"((?:\\.|[^"\\])*)"|[^'"\\]+""")  # of a word; within double quotes `$` still means something
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*\+?)=(.*)", re.DOTALL)


def read_site(path: Path) -> dict[str, str]:
    """The KEY=VALUE lines of a site file, quoted as a shell would have them.

    Lines that assign nothing, and what `export` gives to names that are no keys, are the shell's alone. PARTITION and TIME are
    needed. Raises `UserError` for a file that is missing, lacks what is needed, has an unknown key, a value that a shell would
    read otherwise, a runtime that there is not, or no number where one is needed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--site {path} cannot be read ({error.strerror}): give a file with PARTITION=... and TIME=..."
        ) from None
    site: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{path}, line {number}"
        for key, raw in _assignments(line, where):
            if key in COMMANDS and (sign := _left_to_shell(raw)):
                raise UserError(
                    f"{where}: {key}={raw}: a shell puts something else in place of {sign}, and sbatch would be given it as it "
                    "stands: write the value out, or single quotes around it where that is meant"
                )
            site[key] = "".join(shlex.split(raw))
    _check(site, path)
    return site


def _assignments(line: str, where: str) -> Iterator[tuple[str, str]]:
    """Keys of a line with their values as they are written, quotes and all. Raises `UserError` for a key that there is not."""
    words = _words(line, where)
    exported = words[:1] == ["export"]
    found = [_ASSIGNMENT.fullmatch(word) for word in words[exported:]]
    if not exported and len(words) > 1 and words[0] in COMMANDS + JOBS and words[1].startswith("="):
        raise UserError(f"{where}: `{line.strip()}`: a shell wants no spaces around `=`: write {words[0]}=VALUE")
    if not exported and not all(found):
        return  # a command
    for match in found:
        if match is None:
            continue
        key, raw = match.groups()
        if key in COMMANDS + JOBS:
            yield key, raw
        elif not exported:
            raise UserError(f"{where}: unknown key `{key}`: {_advice(key)}")


def _words(line: str, where: str) -> list[str]:
    """Words of a line, with their quotes, up to a comment."""
    words, rest = [], line.lstrip()
    while rest and not rest.startswith("#"):
        match = _WORD.match(rest)
        end = match.end() if match else 0
        if end == 0 or not (end == len(rest) or rest[end].isspace()):
            raise UserError(f"{where}: No closing quotation: write KEY=VALUE, with quotes around spaces")
        words.append(rest[:end])
        rest = rest[end:].lstrip()
    return words


def _advice(key: str) -> str:
    close = difflib.get_close_matches(key.upper(), COMMANDS + JOBS, 1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"{GENERIC} has them all; a variable of your own is set by `export {key}=VALUE`"


def _left_to_shell(raw: str) -> str:
    """The first sign of a written value that a shell does not take as it stands, or nothing."""
    for match in _PART.finditer(raw):
        quoted = match[1] is not None
        signs = "$`" if quoted else "$`;&|<>()"
        part = re.sub(r"\\.", "", match[1]) if quoted else ("" if match[0][0] in "\\'" else match[0])
        if match.start() == 0 and part.startswith("~") and not quoted:
            return "~"
        if found := next((sign for sign in part if sign in signs), ""):
            return found
    return ""


def _check(site: dict[str, str], path: Path) -> None:
    for key in _NEEDED:
        if not site.get(key):
            raise UserError(f"{path}: {key}= is missing: Slurm needs a partition and a time limit, such as TIME=08:00:00")
    for least, keys in ((1, _ABOVE_ZERO), (0, _FROM_ZERO)):
        for key in keys:
            value = site.get(key, str(least))
            if not (value.isdecimal() and int(value) >= least) and not (value == "" and key in _MAY_BE_EMPTY):
                raise UserError(f"{path}: {key}={value}: a whole number {'above 0' if least else 'from 0'} is needed")
    runtime = site.get("RUNTIME")
    if runtime is not None and runtime not in RUNTIMES:
        raise UserError(f"{path}: RUNTIME={runtime}: it is one of {', '.join(RUNTIMES)}")
    if runtime and RUNTIMES[runtime] and not site.get(RUNTIMES[runtime]):
        raise UserError(f"{path}: RUNTIME={runtime} needs {RUNTIMES[runtime]}=, which is missing or empty")


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
