"""The real teacher: multilingual-e5-small onto a byte-level vocabulary that was trained on the sample, and onto its own."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
TEXTS = [
    "Türkiye Büyük Millet Meclisi Ankara'da toplandı.",
    "Kira sözleşmesi, kiracının temerrüdü halinde kiraya veren tarafından feshedilebilir.",
    "İşçinin kıdem tazminatı, son brüt ücreti üzerinden hesaplanır.",
    "Bu sayfada, hesap tablosundaki hücrelerin nasıl biçimlendirileceği anlatılmaktadır.",
    "How are the cells of a spreadsheet formatted?",
    "Everyone has the right to life, liberty and security of person.",
]


@pytest.fixture(scope="module")
def e5() -> Path:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from real_models import e5_small_folder
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return e5_small_folder(ROOT / ".cache" / "models")


@pytest.mark.slow
def test_the_better_methods_are_closer(e5: Path, sample_corpus: Path, sample_tokenizer: Path, tmp_path: Path):
    from sentence_transformers import SentenceTransformer

    from conversion.clone.cloning import clone_each
    from preprocessing.jsonl import read_records

    # of the split that the tokenizer was not trained on; a handful would tell one text from another, not one method
    long = (record.text[:200] for record in read_records(sample_corpus / "test.jsonl.zst") if len(record.text) > 40)
    texts = list(itertools.islice(long, 200))
    assert len(texts) == 200
    outs = {method: tmp_path / method for method in ("random", "mean", "regression")}
    records = clone_each(e5, sample_tokenizer, outs)
    teacher = SentenceTransformer(str(e5), device="cpu").encode(texts)
    centre = teacher.mean(axis=0)

    def close(method: str) -> float:
        model = SentenceTransformer(str(outs[method]), device="cpu")
        assert model.max_seq_length == 512 and model.prompts["query"] == "query: "
        a, b = model.encode(texts) - centre, teacher - centre
        return float(np.mean((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))

    found = {method: close(method) for method in outs}
    assert found["random"] < found["mean"] < found["regression"], found
    record = records["regression"]
    assert record["parameters"] == {"teacher": 117_653_760, "clone": 117_653_760 - (250_037 - 8192) * 384}
    assert record["entries"]["unmapped"] < 200 and record["entries"]["copied"] > 4000
    (learned,) = record["learned"].values()
    assert learned["examples"] > 40_000 and learned["held_out_cosine"]["regression"] > learned["held_out_cosine"]["mean"] + 0.05


@pytest.mark.slow
def test_its_own_tokenizer_gives_the_same_vectors(e5: Path, tmp_path: Path):
    from sentence_transformers import SentenceTransformer

    from conversion.clone.cloning import clone_folder

    record = clone_folder(e5, e5, tmp_path / "clone")
    assert record["entries"] == {"hole": 0, "copied": 249_997, "composed": 0, "special": 5, "unmapped": 0}
    models = [SentenceTransformer(str(folder), device="cpu") for folder in (e5, tmp_path / "clone")]
    assert np.array_equal(*(model.encode(TEXTS, prompt_name="query") for model in models))
