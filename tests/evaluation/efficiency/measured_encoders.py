"""Encoders whose cost is known: they sleep, hold memory, or end their process. Opened by a measuring process of its own."""

from __future__ import annotations

import os
import time

import numpy as np

from evaluation.encoders.base import Counts, EncoderFacts
from evaluation.encoders.settings import EncoderSettings
from evaluation.encoders.source import SystemSource

SECONDS = 0.02  # of a text
HELD = 300_000_000  # bytes


class Sleeper:
    def __init__(self, source: SystemSource) -> None:
        self.name = source.name
        self.counts = Counts()
        self.facts = EncoderFacts(
            name=source.name, spec=source.spec, kind="model2vec", sha256=source.sha256, parameters=1000,
            embedding_parameters=400, dimensions=8, max_seq_length=None, pooling="mean", pooling_assumed=False, query_prompt="",
            document_prompt="", text_prompt="", dtype="fp32",
        )  # fmt: skip

    def encode(self, texts, role):
        time.sleep(SECONDS * len(texts))
        self.counts.truncated += sum(len(text) > 30 for text in texts)
        return np.ones((len(texts), 8), dtype=np.float32)


def open_sleeper(source: SystemSource, device: str, settings: EncoderSettings) -> Sleeper:
    time.sleep(0.3)
    return Sleeper(source)


def open_holder(source: SystemSource, device: str, settings: EncoderSettings) -> Sleeper:
    found = Sleeper(source)
    found.held = np.ones(HELD, dtype=np.uint8)
    return found


class Killed:
    """Ends the process in which it is unpickled."""

    def __getstate__(self) -> dict:
        return {"pickled": True}

    def __setstate__(self, state: dict) -> None:
        os._exit(9)

    def __call__(self, source: SystemSource, device: str, settings: EncoderSettings) -> Sleeper:
        raise AssertionError("nothing is opened here")


open_killed = Killed()
