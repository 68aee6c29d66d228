"""Learn from the teacher's own entries how pieces make a row: a linear map of their mean, first and last, by ridge regression.

A fifth of the entries is taken out of the teacher's tokenizer, which then splits their texts into others; for these both the
pieces and the row that was trained are known. What is found there holds for the entries of a new vocabulary, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import torch

from conversion.clone.splitting import Splitter
from conversion.clone.vocabulary import Spelled, TokenizerFolder, spelled
from mecellem.errors import UserError

Tensor = torch.Tensor
TAKEN_OUT = 0.2
MOST = 60_000  # examples
HELD_OUT = 0.1  # of the examples: they choose the strength of the ridge and are what the record tells of
RIDGES = (0.001, 0.01, 0.1, 1.0)  # of the mean square of the features
BLOCK = 4096  # examples at a time
NOTHING = -1e6  # the score of an entry that no text shall get


@dataclass(frozen=True, slots=True)
class Examples:
    """The teacher's `entries` int64 `[n]`, made of `pieces[offsets[i]:offsets[i + 1]]`, two and more each, in random order."""

    entries: np.ndarray
    offsets: np.ndarray
    pieces: np.ndarray


def make_examples(teacher: TokenizerFolder, seed: int) -> Examples:
    """Entries that the teacher's tokenizer splits when it does not have them. Raises `UserError` where there are too few."""
    names = {number: piece for piece, number in teacher.ids.items()}
    texts = [
        spelled(names[number], number, teacher) for number in sorted(names) if number not in teacher.added | teacher.special
    ]
    long = [text for text in texts if len(text.raw.strip()) > 1 and not text.fallback]
    order = np.random.default_rng(seed).permutation(len(long))[: min(MOST, int(len(long) * TAKEN_OUT))]
    chosen: list[Spelled] = [long[place] for place in order]
    found, _ = Splitter(_without(teacher, {names[text.id] for text in chosen})).split(chosen)
    gone = {text.id for text in chosen}
    kept = [(text.id, ids) for text, ids in zip(chosen, found, strict=True) if len(ids) > 1 and gone.isdisjoint(ids)]
    if len(kept) < 100:
        raise UserError(
            f"--method regression learns from the teacher's entries, and {teacher.folder} has only {len(kept)} to learn from: "
            "choose --method mean"
        )
    offsets = np.concatenate([[0], np.cumsum([len(ids) for _, ids in kept])])
    pieces = np.fromiter((number for _, ids in kept for number in ids), dtype=np.int64)
    return Examples(np.array([number for number, _ in kept], dtype=np.int64), offsets, pieces)


def _without(teacher: TokenizerFolder, gone: set[str]) -> TokenizerFolder:
    """The tokenizer with the same ids that splits every text without these entries."""
    import dataclasses

    from tokenizers import Tokenizer

    settings: dict[str, Any] = orjson.loads((teacher.folder / "tokenizer.json").read_bytes())
    model = settings["model"]
    if isinstance(model["vocab"], list):  # Unigram
        model["vocab"] = [[_hidden(piece), NOTHING] if piece in gone else [piece, score] for piece, score in model["vocab"]]
    elif "merges" in model:  # an entry that no merge makes is never found
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [pair for pair in pairs if "".join(pair) not in gone]
        model["ignore_merges"] = False
    else:
        model["vocab"] = {_hidden(piece) if piece in gone else piece: number for piece, number in model["vocab"].items()}
    settings |= {"truncation": None, "padding": None}
    return dataclasses.replace(teacher, tokenizer=Tokenizer.from_str(orjson.dumps(settings).decode()))


def _hidden(piece: str) -> str:
    """A string that no text has."""
    return f"\ufdd0{piece}"


def features(pieces: Tensor, counts: Tensor) -> Tensor:
    """Mean, first and last piece and a one, fp32 `[n, 3 d + 1]`, of pieces `[sum(counts), d]` after one another."""
    ends = counts.cumsum(0)
    owners = torch.repeat_interleave(torch.arange(len(counts)), counts)
    mean = torch.zeros(len(counts), pieces.size(1)).index_add_(0, owners, pieces) / counts.unsqueeze(1)
    return torch.cat([mean, pieces[ends - counts], pieces[ends - 1], torch.ones(len(counts), 1)], dim=1)


class Regression:
    """Fitted to one tensor of the vocabulary, `[entries, ...]`; makes rows as a `combination.Maker` does.

    `ridge`: the strength that was chosen. `stretch`: how much farther from their mean its rows were put afterwards. `held_out`:
    mean cosine between rows that were not learned from and what is made of their pieces, by this and by their mean.
    """

    def __init__(self, table: Tensor, examples: Examples) -> None:
        self.table, self.examples = table, examples
        learned = int(len(examples.entries) * (1 - HELD_OUT))
        width = 3 * table[0].numel() + 1
        gram = torch.zeros(width, width, dtype=torch.float64)
        target = torch.zeros(width, table[0].numel(), dtype=torch.float64)
        for start in range(0, learned, BLOCK):
            given, rows = self._examples(start, min(start + BLOCK, learned))
            gram += given.T @ given
            target += given.T @ rows
        given, rows = self._examples(learned, len(examples.entries))
        errors: dict[float, tuple[float, Tensor]] = {}
        scale = float(gram.diagonal().mean())
        for ridge in RIDGES:
            weights = torch.linalg.solve(gram + ridge * scale * torch.eye(width, dtype=torch.float64), target).float()
            errors[ridge] = float((given @ weights - rows).square().mean()), weights
        self.ridge = min(errors, key=lambda ridge: errors[ridge][0])
        self.weights = errors[self.ridge][1]
        # what is guessed with little certainty comes out near the mean; layers expect rows as far from it as the teacher's are
        made, centre = given @ self.weights, rows.mean(dim=0)
        self.stretch = float((rows - centre).norm() / (made - made.mean(dim=0)).norm().clamp(min=1e-12))
        self.weights *= self.stretch
        self.weights[-1] += (1 - self.stretch) * centre
        mean = given[:, : rows.size(1)]
        self.held_out = {"regression": _cosine(given @ self.weights, rows), "mean": _cosine(mean, rows)}

    def _examples(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        offsets = self.examples.offsets[start : stop + 1]
        pieces = self.table[torch.from_numpy(self.examples.pieces[offsets[0] : offsets[-1]])].float()
        rows = self.table[torch.from_numpy(self.examples.entries[start:stop])].float()
        return features(pieces.view(len(pieces), -1), torch.from_numpy(np.diff(offsets))), rows.view(len(rows), -1)

    def __call__(self, pieces: Tensor, counts: Tensor) -> Tensor:
        """Rows of pieces."""
        return (features(pieces.view(len(pieces), -1), counts) @ self.weights).view(len(counts), *pieces.shape[1:])

    def facts(self) -> dict[str, object]:
        """How much it learned from, and how well it does."""
        return {
            "examples": len(self.examples.entries),
            "ridge": self.ridge,
            "stretch": self.stretch,
            "held_out_cosine": self.held_out,
        }


def _cosine(made: Tensor, rows: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(made, rows, dim=1).mean())
