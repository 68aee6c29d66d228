"""The command's flags, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from mecellem.console import step

MethodName = Literal["mean", "weighted", "first", "regression", "omp", "random"]
DtypeName = Literal["stored", "float32", "bfloat16", "float16"]


def clone(
    teacher: str,
    tokenizer: Path,
    out: Path,
    method: MethodName = "mean",
    dtype: DtypeName = "stored",
    seed: int = 0,
    another_teacher: bool = False,
) -> None:
    """Put a teacher's model onto a new vocabulary: same layers, new rows; the clone is compared with the teacher bit by bit.

    An entry that the teacher has, too, keeps its row. The text of any other is split by the teacher's tokenizer, and its row is
    made of those of the pieces. Special tokens go by their role (padding, beginning, mask, ...).

    Args:
        teacher: a Hugging Face or sentence-transformers folder, a model of the Hugging Face Hub by its id, or a Megatron
            checkpoint (`RUN/checkpoints/step_NNNNNNN`), of which the clone is one, too, at step 0.
        tokenizer: folder of the new tokenizer.
        out: the folder to write.
        method: how pieces become a row. mean: the same weight for each. weighted: n, n - 1, ..., 1 for n pieces. first: the
            first alone. regression: a linear map of their mean, first and last, learned on the teacher's own entries. omp:
            sparse sums of entries that both vocabularies have, by what the teacher's layers make of them. random: drawn
            with the teacher's mean and deviation.
        dtype: type of the weights, by default as the teacher has them.
        seed: of random and regression.
        another_teacher: take a tokenizer that was grafted from another teacher's, which is refused otherwise.
    """
    import torch

    from conversion.clone.checkpoint import clone_checkpoint
    from conversion.clone.cloning import clone_folder
    from megatron_recipes.run_folder import CHECKPOINT

    kept = None if dtype == "stored" else getattr(torch, dtype)
    with step("convert clone", reads=[teacher, tokenizer], writes=[out]) as printer:
        if (Path(teacher) / CHECKPOINT).is_file():
            record = clone_checkpoint(Path(teacher), tokenizer, out, method, kept, seed, another_teacher)
        else:
            record = clone_folder(teacher, tokenizer, out, method, kept, seed, another_teacher)
        for line in sentences(record):
            printer.print(line, markup=False)


def sentences(record: dict[str, Any]) -> list[str]:
    """What a record says, for people."""
    entries, backbone, parameters = record["entries"], record["backbone"], record["parameters"]
    lines = [
        f"{record['tokenizer']['entries']:,} entries: {entries['copied']:,} copied, {entries['composed']:,} composed "
        f"({record['method']}), {entries['special']:,} special tokens by role or name, {entries['unmapped']:,} unmapped",
        f"{parameters['teacher']:,} -> {parameters['clone']:,} parameters; {backbone['tensors']:,} tensors beside the "
        + "vocabulary "
        + ("have the teacher's bits" if backbone["same_bits_as_the_teacher"] else "are the teacher's, rounded")
        + f", and so have {record['rows_with_the_teachers_bits']:,} rows",
    ]
    if record["unmapped"]:
        some = ", ".join(list(record["unmapped"])[:5])
        lines.append(f"unmapped ({some}, ...; clone.json lists them): their rows are {record['unmapped_rows_are']}")
    if partly := record["partly_spelled"]["count"]:
        some = ", ".join(record["partly_spelled"]["entries"][:5])
        lines.append(f"{partly:,} composed entries ({some}, ...) have characters that the teacher lacks: made of the rest")
    return lines + [f"note: {note}" for note in record["notes"]]
