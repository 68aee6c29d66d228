"""The front door: `mecellem COMMAND ...`. One line a command; nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import errno
import importlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mecellem import __version__
from mecellem.errors import UserError
from mecellem.files import DISK_FULL

CLOSE = 0.75  # how alike a mistyped command and one that was meant are (difflib)
# words typed -> (module:function that parses its own flags, one line for --help)
COMMANDS: dict[tuple[str, ...], tuple[str, str]] = {
    ("demo",): ("mecellem.demo:main", "real Turkish text to an evaluated model and a report, in minutes"),
    ("doctor",): ("mecellem.doctor:main", "what this machine can do, and what stands in the way"),
    ("corpus", "fetch"): ("preprocessing.corpus.fetch:main", "download, clean and split real Turkish text"),
    ("tokenizer", "train"): ("preprocessing.tokenizer:main", "train a byte-level BPE tokenizer on a corpus"),
    ("tokenizer", "graft"): (
        "preprocessing.graft:main",
        "regrow a teacher's tokenizer towards a language, exactly so many entries",
    ),
    ("tokenizer", "compare"): ("preprocessing.tokenizers.compare:main", "tokenizers beside one another on texts, by source"),
    ("tokenizer", "report"): ("preprocessing.tokenizers.report:main", "one self-contained HTML page about a tokenizer"),
    ("prepare", "run"): (
        "preprocessing.pipeline.run:main",
        "a corpus.yaml: read sources, clean, deduplicate, filter, tokenize",
    ),
    ("prepare", "status"): ("preprocessing.pipeline.status:main", "stage by stage: what is done, kept, dropped and why"),
    ("prepare", "report"): ("preprocessing.pipeline.report:main", "one self-contained HTML page about a prepared corpus"),
    ("prepare", "calibrate"): ("preprocessing.calibrate:main", "what the filters make of text that you trust, and of bad text"),
    ("prepare", "tokenize"): ("preprocessing.tokens.tokenize:main", "write a corpus as Megatron .bin/.idx with a manifest"),
    ("prepare", "merge"): ("preprocessing.tokens.merge:main", "make one corpus of many .bin/.idx, without tokenizing"),
    ("curriculum", "check"): (
        "megatron_recipes.curriculum_check:main",
        "stages, sources and epochs of a curriculum against its corpora, with a picture",
    ),
    ("train",): ("megatron_recipes.train:main", "run a recipe with Megatron-Core, or show its plan with --dry-run"),
    ("convert", "export"): ("conversion.export:main", "Megatron checkpoint -> verified Hugging Face folder"),
    ("convert", "import"): ("conversion.hf_import:main", "Hugging Face folder -> Megatron checkpoint"),
    ("convert", "clone"): ("conversion.clone:main", "a model onto another vocabulary: Hugging Face folders and checkpoints"),
    ("select",): ("evaluation.selection:main", "which checkpoint of a run to keep: by retrieval after the same post-training"),
    ("post-train", "contrastive"): (
        "post_training.contrastive:main",
        "an embedding model out of a pre-trained one, on pairs, triplets or crops",
    ),
    ("post-train", "mine"): ("post_training.mining:main", "hard negatives for pairs, without the false ones"),
    ("distill", "vectors"): (
        "post_training.distillation.vectors:main",
        "a teacher's vectors of a corpus, stored once, in shards",
    ),
    ("distill", "train"): ("post_training.distillation.train:main", "train a student to give a teacher's stored vectors"),
    ("evaluate",): (
        "evaluation.leaderboard:main",
        "models of any kind on retrieval, bitext, classification and more, beside BM25",
    ),
    ("evaluate", "retrieval"): ("evaluation.leaderboard:main_retrieval", "the same, on tasks of retrieval alone"),
    ("evaluate", "prefetch"): ("evaluation.tasks.prefetch:main", "download what evaluation tasks read, for offline machines"),
    ("evaluate", "fill-mask"): (
        "evaluation.fill_mask:main",
        "masked tokens, words, pseudo-perplexity and a legal cloze, by domain",
    ),
    ("evaluate", "long-context"): (
        "evaluation.long_context:main",
        "needles, the places a vector looks at, masks by place, up to 8,192 tokens",
    ),
    ("evaluate", "efficiency"): (
        "evaluation.efficiency:main",
        "quality against measured cost: open definitions side by side, Pareto fronts",
    ),
    ("evaluate", "reward"): (
        "evaluation.reward:main",
        "what two models write, scored axis by axis by a reward model, with paired tests",
    ),
    ("evaluate", "perplexity"): (
        "evaluation.perplexity:main",
        "perplexity and bits per byte of causal models, by sub-domain, with intervals",
    ),
    ("compare-runs",): ("evaluation.compare_runs:main", "pass or fail: does a run (FP8, say) train like another one"),
    ("slurm", "preflight"): ("slurm.preflight:main", "are the nodes of this job fit to train, and which are not"),
    ("slurm", "submit"): ("slurm.submit:main", "the jobs of a pipeline.yaml, each waiting for those before it"),
    ("slurm", "bench"): ("slurm.bench:main", "how fast a recipe trains here: layouts x batches x precisions x nodes"),
    ("slurm", "status"): ("slurm.status:main", "how far runs are, what their jobs do, and the last error"),
    ("report",): ("evaluation.report:main", "one self-contained HTML page about a run"),
}


OWN = {module.split(".")[0] for module, _ in COMMANDS.values()}  # a module of ours that is missing is a bug


def usage() -> str:
    """The text of `mecellem --help`."""
    return "\n".join(
        [
            f"mecellem {__version__}: train language models for one language and one domain with Megatron-Core",
            "",
            "usage: mecellem COMMAND [flags]      mecellem COMMAND --help shows a command's flags",
            "",
            *command_lines(COMMANDS),
        ]
    )


def command_lines(commands: Mapping[tuple[str, ...], tuple[str, str]]) -> list[str]:
    """A line for each command: its words and what it is for."""
    width = max(len(" ".join(words)) for words in commands)
    return [f"  {' '.join(words):<{width}}  {help_}" for words, (_, help_) in commands.items()]


def group_of(words: Sequence[str]) -> dict[tuple[str, ...], tuple[str, str]]:
    """The commands that begin with these words, where the words alone are none."""
    if tuple(words) in COMMANDS:
        return {}
    return {name: found for name, found in COMMANDS.items() if name[: len(words)] == tuple(words)}


def find_command(argv: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Split `argv` into a command's words and the rest. Raises `UserError` that lists what was possible."""
    for words in sorted(COMMANDS, key=len, reverse=True):
        if tuple(argv[: len(words)]) == words:
            _check_next_word(words, argv[len(words) :])
            return words, list(argv[len(words) :])
    group = [" ".join(words) for words in COMMANDS if words[0] == argv[0]]
    if group:
        raise UserError(f"`mecellem {argv[0]}` needs one more word: {', '.join(group)}")
    close = get_close_matches(argv[0], {words[0] for words in COMMANDS}, 1, CLOSE)
    meant = f": did you mean `mecellem {close[0]}`?" if close else ": `mecellem --help` lists them"
    raise UserError(f"`mecellem {argv[0]}` is not a command{meant}")


def _check_next_word(words: tuple[str, ...], rest: Sequence[str]) -> None:
    """Raise `UserError` for a mistyped second word of a command that is one without it too (`evaluate retrival`)."""
    if not rest or rest[0].startswith("-") or Path(rest[0]).exists():
        return
    longer = [name[-1] for name in COMMANDS if len(name) > len(words) and name[: len(words)] == words]
    if close := get_close_matches(rest[0], longer, 1, CLOSE):
        command = " ".join(("mecellem", *words))
        raise UserError(f"`{command} {rest[0]}`: there is no such path; did you mean `{command} {close[0]}`?")


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    """End on SIGTERM through the `finally` blocks that remove temporary files; 143 is the shell's code for it."""
    sys.exit(128 + signum)


def run(argv: Sequence[str]) -> int:
    """Print help or run one command; returns its exit code. Errors pass through."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] in ("-V", "--version"):
        print(__version__)
        return 0
    if argv[-1] in ("-h", "--help") and (group := group_of(argv[:-1])):
        print("\n".join(command_lines(group)))
        return 0
    words, rest = find_command(argv)
    module, function = COMMANDS[words][0].split(":")
    return int(getattr(importlib.import_module(module), function)(rest) or 0)


def main(argv: Sequence[str] | None = None) -> int:
    """The console command; returns the exit code.

    0: done; 2: bad input, a missing package or a file that cannot be written, told in one sentence on standard error;
    130: interrupted (Ctrl-C); 141: the reader of standard output went away; 143: ended by SIGTERM. Other codes are the
    command's own.
    """
    if threading.current_thread() is not threading.main_thread():
        return _answer(argv)
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        return _answer(argv)
    finally:
        # While the interpreter ends, a SystemExit would only be a traceback out of some library's exit handler
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _answer(argv: Sequence[str] | None) -> int:
    """The exit code of a command whose errors are told."""
    try:
        code = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except UserError as error:
        return _say(str(error), 2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OWN:
            raise
        return _say(
            f"the Python package {package!r} is not installed: pip install -e '.[cpu]' trains, "
            "'.[gpu]' trains on GPUs, '.[demo]' also evaluates",
            2,
        )
    except BrokenPipeError:  # `mecellem ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would fail again when it flushes
        return 141
    except OSError as error:
        if error.errno not in (*DISK_FULL, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return _say(f"{error.filename or 'a file'}: {error.strerror}", 2)
    except KeyboardInterrupt:
        exec("")  # Ctrl-C inside an exec of text (dataclasses are made so) makes Python end by the signal, unless one more runs
        return _say("interrupted", 130)
    except SystemExit as left:
        if left.code == 2:  # tyro has told what is wrong with the flags; a job is not to be put back for it
            words = shlex.join(sys.argv[1:] if argv is None else argv)
            _first_to_refuse(f"wrong flags, which the output above names: mecellem {words}")
        raise
    except BaseException:  # Megatron-Core's CheckpointException is no Exception
        if not _another_refuses():
            raise
        return 2  # what this rank met follows from what the other one has told


def _say(sentence: str, code: int) -> int:
    if code != 2 or _first_to_refuse(sentence):
        print(f"mecellem: {sentence}", file=sys.stderr)
    return code


def _first_to_refuse(sentence: str) -> bool:
    """Whether no other rank has refused yet. Under srun, `MECELLEM_REFUSAL` names a file that the first one writes.

    srun's own exit code tells nothing: it is that of the ranks that were ended because one failed.
    """
    path = os.environ.get("MECELLEM_REFUSAL")
    if not path:
        return True
    try:
        with open(path, "x", encoding="utf-8") as handle:
            handle.write(f"{sentence}\n")
    except OSError as error:  # where the file cannot be written, every rank tells
        return not isinstance(error, FileExistsError)
    return True


def _another_refuses(seconds: float = 3.0) -> bool:
    """Whether another rank refuses at the same time, as when the disk is full for the one that writes for all."""
    name = os.environ.get("MECELLEM_REFUSAL")
    if not name:
        return False
    end = time.monotonic() + seconds
    while not Path(name).exists() and time.monotonic() < end:
        time.sleep(0.1)
    return Path(name).exists()


if __name__ == "__main__":
    sys.exit(main())
