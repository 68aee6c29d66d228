"""The list of modules of a sentence-transformers folder, and what is wrong with it."""

from __future__ import annotations

import json

import pytest

from mecellem.errors import UserError
from mecellem.module_folders import Module, read_modules, transformer_folder


def listed(folder, modules):
    folder.mkdir(exist_ok=True)
    (folder / "modules.json").write_text(modules if isinstance(modules, str) else json.dumps(modules))
    return folder


def test_modules_in_order_and_the_transformers_place(tmp_path):
    names = [("a.b.Transformer", "0_Transformer"), ("Pooling", "1_Pooling"), ("c.Normalize", "2_Normalize")]
    folder = listed(tmp_path / "model", [{"type": kind, "path": path} for kind, path in names])
    for path in ("0_Transformer", "1_Pooling"):
        (folder / path).mkdir()
    assert read_modules(folder) == [
        Module("Transformer", "0_Transformer"),
        Module("Pooling", "1_Pooling"),
        Module("Normalize", "2_Normalize"),  # without a folder, as it has no settings
    ]
    assert transformer_folder(folder) == folder / "0_Transformer"
    (folder / "1_Pooling").rmdir()
    with pytest.raises(UserError, match=r"1_Pooling is missing though .*modules\.json names it"):
        read_modules(folder)
    assert transformer_folder(folder) == folder / "0_Transformer", "where only the tokenizer was copied"
    assert transformer_folder(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ("{", "is no list of modules"),
        ([{"type": "Transformer"}], "is no list of modules"),
        ([], "names no module"),
        ([{"type": "Transformer", "path": "../other"}], "outside of the folder"),
        ([{"type": "Transformer", "path": "/other"}], "outside of the folder"),
    ],
)
def test_damaged_lists_are_refused(modules, message, tmp_path):
    with pytest.raises(UserError, match=message):
        transformer_folder(listed(tmp_path / "model", modules))
