import gzip
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import zstandard
from command_line import mecellem, refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from mecellem.errors import UserError
from mecellem.manifest import read_manifest, verify_files
from preprocessing.jsonl import read_records
from preprocessing.tokenizer import load_tokenizer
from preprocessing.tokens import write
from preprocessing.tokens.tokenize import tokenize_corpus

FILES = ("x.bin", "x.idx", "x.manifest.json")


def write_jsonl(path, records):
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def prepare(source, tokenizer, out, replace=False, **options):
    words = [
        "prepare",
        "tokenize",
        "--input",
        source,
        "--tokenizer",
        tokenizer,
        "--out",
        out,
        *(["--replace"] if replace else []),
    ]
    return mecellem(*words, cwd=source.parent, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def write_with_megatron(records, tokenizer, prefix):
    """What Megatron-LM's preprocess_data.py does, with megatron.core's own tokenizer wrapper and builder."""
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
    from megatron.core.tokenizers.text.libraries.huggingface_tokenizer import HuggingFaceTokenizer

    wrapper = HuggingFaceTokenizer(str(tokenizer), include_special_tokens=False)
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(wrapper.vocab_size))
    for record in records:
        ids = wrapper.text_to_ids(record["text"])
        if ids:
            ids.append(wrapper.eod)
        builder.add_document(ids, [len(ids)] if ids else [])
    builder.finalize(f"{prefix}.idx")


def test_the_files_are_byte_for_byte_megatrons(sample_corpus, sample_tokenizer, tmp_path, out):
    records = [{"text": record.text} for record in read_records(sample_corpus / "validation.jsonl.zst")]
    records += [{"text": text} for text in ("", " ", "\n", "e\u0301 İ \U0001f9ff", "", "a\x00b")]
    source = write_jsonl(tmp_path / "x.jsonl", records)
    manifest = tokenize_corpus([source], sample_tokenizer, out / "x")
    write_with_megatron(records, sample_tokenizer, tmp_path / "megatron")
    for kind in ("bin", "idx"):
        assert (out / f"x.{kind}").read_bytes() == (tmp_path / f"megatron.{kind}").read_bytes()
    assert manifest == read_manifest(out / "x")
    verify_files(out / "x", manifest)
    assert manifest.documents == len(records)
    assert manifest.tokens == (out / "x.bin").stat().st_size // 2


def test_special_tokens_written_in_a_text_are_text(sample_tokenizer, tmp_path, out):
    """Where Megatron-LM would cut the document in two; transformers calls this split_special_tokens."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from transformers import AutoTokenizer

    text = "Kılavuz: [CLS] ile başlar, [SEP] ile biter; [MASK] ve [PAD], <unk> da vardır. [SEP]"
    source = write_jsonl(tmp_path / "x.jsonl", [{"text": text}])
    tokenize_corpus([source], sample_tokenizer, out / "x")
    dataset = IndexedDataset(str(out / "x"))  # kept: its arrays point into memory that goes with it
    ids = dataset[0]
    reference = AutoTokenizer.from_pretrained(sample_tokenizer, split_special_tokens=True)
    assert ids.tolist() == [*reference(text, add_special_tokens=False).input_ids, 3]
    assert not np.isin(ids[:-1], range(5)).any()
    assert reference.decode(ids[:-1]) == text


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@settings(max_examples=50)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=8))
def test_any_text_comes_back_from_the_ids(sample_tokenizer, scratch, texts):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    source = write_jsonl(scratch / "x.jsonl", [{"text": text} for text in [*texts, "son"]])
    tokenize_corpus([source], sample_tokenizer, scratch / "x", replace=True)
    dataset = IndexedDataset(str(scratch / "x"))
    decode = load_tokenizer(sample_tokenizer).tokenizer.decode
    sequences = [dataset[i].tolist() for i in range(len(dataset))]
    assert all(sequence[-1] == 3 for sequence in sequences)
    assert [decode(sequence[:-1]) for sequence in sequences] == [text for text in [*texts, "son"] if text]


def test_sources_are_ranges_of_documents_and_all_three_kinds_of_file_are_read(sample_tokenizer, tmp_path, out):
    one = [{"text": "bir", "source": "a", "licence": "x"}, {"text": "", "source": "a", "licence": "x"}]
    two = [{"text": "iki", "source": "a", "licence": "x"}, {"text": "üç", "source": "a", "licence": "y"}]
    lines = [write_jsonl(tmp_path / "lines", records).read_bytes() for records in (one, two, [{"text": "dört"}])]
    paths = [tmp_path / name for name in ("1.jsonl", "2.jsonl.gz", "3.jsonl.zst")]
    paths[0].write_bytes(lines[0])
    paths[1].write_bytes(gzip.compress(lines[1]))
    paths[2].write_bytes(zstandard.ZstdCompressor().compress(lines[2]))
    manifest = tokenize_corpus(paths, sample_tokenizer, out / "x")
    ranges = [(part.first, part.last, part.source, part.licence) for part in manifest.sources]
    assert ranges == [(0, 3, "a", "x"), (3, 4, "a", "y"), (4, 5, "3.jsonl.zst", "unknown")]
    assert manifest.documents == 5


def test_sources_that_change_too_often_for_a_manifest_are_refused(sample_tokenizer, tmp_path, out, monkeypatch):
    source = write_jsonl(tmp_path / "x.jsonl", [{"text": "a", "source": name} for name in "aabbcc"])
    monkeypatch.setattr("preprocessing.tokens.provenance._MAX_RANGES", 3)
    assert len(tokenize_corpus([source], sample_tokenizer, out / "x").sources) == 3
    monkeypatch.setattr("preprocessing.tokens.provenance._MAX_RANGES", 2)
    with pytest.raises(UserError, match="sort the lines by source"):
        tokenize_corpus([source], sample_tokenizer, out / "y")
    assert set(contents(out)) == set(FILES)


def test_batches_leave_no_trace(sample_tokenizer, sample_corpus, out, monkeypatch):
    source = sample_corpus / "validation.jsonl.zst"
    tokenize_corpus([source], sample_tokenizer, out / "x")
    monkeypatch.setattr("preprocessing.tokens.write._BLOCK", 1000)
    monkeypatch.setattr("preprocessing.tokens.engines._FORGET_AFTER", 5000)
    monkeypatch.setattr("preprocessing.tokens.engines._resident", lambda: None)
    monkeypatch.setattr("preprocessing.tokens.indexed._CHUNK", 11)
    tokenize_corpus([source], sample_tokenizer, out / "y")
    for kind in ("bin", "idx"):
        assert (out / f"x.{kind}").read_bytes() == (out / f"y.{kind}").read_bytes()


def test_a_complete_corpus_is_not_made_again_and_a_damaged_one_is(sample_tokenizer, tmp_path, out):
    source = write_jsonl(tmp_path / "x.jsonl", [{"text": "bir"}])
    first = prepare(source, sample_tokenizer, out / "x")
    assert first.returncode == 0, first.stderr
    assert "bytes per token" in first.stdout
    written = ", ".join(str(out / f"x.{kind}") for kind in ("bin", "idx", "manifest.json"))
    assert first.stdout.count(f"wrote   {written}\n") == 1
    assert set(contents(out)) == set(FILES)
    stamp = (out / "x.bin").stat().st_mtime_ns
    again = prepare(source, sample_tokenizer, out / "x")
    assert "nothing to do" in again.stdout and "wrote" not in again.stdout
    assert (out / "x.bin").stat().st_mtime_ns == stamp

    whole = contents(out)
    for name in FILES:  # a file that was changed, cut or removed is made again; without a manifest only when told to
        for damaged in (whole[name][:-2], b"x" + whole[name][1:], None):
            (out / name).unlink() if damaged is None else (out / name).write_bytes(damaged)
            if name == "x.manifest.json":
                with pytest.raises(UserError, match="exists already"):
                    tokenize_corpus([source], sample_tokenizer, out / "x")
            tokenize_corpus([source], sample_tokenizer, out / "x", replace=name == "x.manifest.json")
            assert contents(out) == whole


def test_another_corpus_is_not_overwritten_unless_told_to(sample_tokenizer, tmp_path, out):
    source, other = (write_jsonl(tmp_path / f"{text}.jsonl", [{"text": text}]) for text in ("bir", "iki"))
    tokenize_corpus([source], sample_tokenizer, out / "x")
    whole = contents(out)
    message = refusal(prepare(other, sample_tokenizer, out / "x"))
    assert f"{out / 'x'}.manifest.json exists already" in message
    assert "choose another --out, or add --replace if no run needs the older corpus" in message
    with pytest.raises(UserError, match="add --replace"):
        tokenize_corpus([source], sample_tokenizer, out / "x", eod="[PAD]")
    assert contents(out) == whole
    for name in FILES[::-1][:2]:  # a .bin or .idx alone may be someone's too
        (out / name).unlink()
        with pytest.raises(UserError, match=r"x\.(bin|idx) exists already"):
            tokenize_corpus([other], sample_tokenizer, out / "x")
    done = prepare(other, sample_tokenizer, out / "x", replace=True)
    assert done.returncode == 0, done.stderr
    assert set(contents(out)) == set(FILES) and contents(out)["x.bin"] != whole["x.bin"]
    again = prepare(other, sample_tokenizer, out / "x", replace=True)
    assert "nothing to do" in again.stdout


def test_the_engine_can_be_chosen_and_a_corpus_of_the_other_one_is_made_again(sample_tokenizer, tmp_path, out):
    source = write_jsonl(tmp_path / "x.jsonl", [{"text": "bir"}])
    flags = ["prepare", "tokenize", "--input", source, "--tokenizer", sample_tokenizer, "--out", out / "x"]
    assert "engine gigatoken" in mecellem(*flags, cwd=tmp_path).stdout
    before = contents(out)
    other = [*flags, "--engine", "tokenizers"]
    assert "add --replace" in refusal(mecellem(*other, cwd=tmp_path))
    assert "engine tokenizers" in mecellem(*other, "--replace", cwd=tmp_path).stdout
    after = contents(out)
    assert [before[name] == after[name] for name in FILES] == [True, True, False]
    assert "nothing to do" in mecellem(*flags, cwd=tmp_path).stdout  # tokenizers is right by definition
    assert "give --shards as well" in refusal(mecellem(*flags, "--task", "0/2", cwd=tmp_path))


def rewrite_manifest(path, **update):
    manifest = json.loads(path.read_text()) | update
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"versions": {"mecellem": "0.1.9", "tokenizers": "0.20.0"}}, "mecellem 0.1.9 and tokenizers 0.20.0"),
        ({"engine": {"version": "0.9.0"}}, "gigatoken 0.9.0"),
        ({"inputs": None, "engines": None}, "mecellem "),  # of mecellem 0.2
    ],
)
def test_a_corpus_of_other_versions_stays_unless_told_to_write_it_again(sample_tokenizer, tmp_path, out, update, words):
    """The text and the tokenizer are the same, a run may need the files, and there is no reason to doubt them."""
    source = write_jsonl(tmp_path / "x.jsonl", [{"text": "bir"}])
    manifest = tokenize_corpus([source], sample_tokenizer, out / "x")
    path = out / "x.manifest.json"
    if "versions" in update:
        update = {"versions": manifest.versions | update["versions"]}
    if "engine" in update:
        update = {"engines": [manifest.engines[0].model_dump() | update["engine"]]}
    rewrite_manifest(path, **update)
    before = contents(out)
    done = prepare(source, sample_tokenizer, out / "x")
    assert done.returncode == 0, done.stderr
    assert f"is complete and from the same text, written by {words}" in done.stdout
    assert "--replace writes it again" in done.stdout
    assert contents(out) == before
    assert read_manifest(out / "x").sources == manifest.sources
    assert tokenize_corpus([source], sample_tokenizer, out / "x", replace=True) == manifest == read_manifest(out / "x")
    assert "nothing to do" in prepare(source, sample_tokenizer, out / "x", replace=True).stdout


def test_a_file_that_vanishes_is_one_sentence_and_leaves_nothing(sample_tokenizer, tmp_path, out, monkeypatch):
    sources = [write_jsonl(tmp_path / name, [{"text": "bir"}]) for name in ("a.jsonl", "b.jsonl")]
    read = write.read_line_blocks

    def vanishing(path, *arguments):
        sources[1].unlink(missing_ok=True)
        return read(path, *arguments)

    monkeypatch.setattr(write, "read_line_blocks", vanishing)
    with pytest.raises(UserError, match=r"b\.jsonl vanished"):
        tokenize_corpus(sources, sample_tokenizer, out / "x")
    assert contents(out) == {}


# Not the kernel's ru_maxrss: it counts what the parent had when it started the child.
RUN_AND_TELL_PEAK = """
import sys
from mecellem.cli import main
code = main(sys.argv[1:])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(sample_tokenizer, tmp_path, out):
    """One word in five is a new one all the time, which is what an engine that remembers words grows with."""
    letters, peaks = str.maketrans("0123456789abcdef", "abcçdefgğhıijklm"), []
    for megabytes in (30, 400):
        source, size, number = tmp_path / f"{megabytes}.jsonl", 0, 0
        with open(source, "w", encoding="utf-8") as lines:
            while size < megabytes * 1_000_000:
                new = hashlib.sha256(str(number).encode()).hexdigest().translate(letters)
                line = " ".join(f"söz ve daha bir {new[start : start + 9]}" for start in range(0, 63, 9))
                size, number = size + lines.write(f'{{"text": "{line}"}}\n'), number + 1
        arguments = ["prepare", "tokenize", "--input", source, "--tokenizer", sample_tokenizer, "--out", out / source.stem]
        command = [sys.executable, "-c", RUN_AND_TELL_PEAK, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        peaks.append(int(done.stderr.split()[-2]) / 1024)
    assert max(peaks) < 600, peaks
    assert peaks[1] < 1.2 * peaks[0], peaks


BAD_TEXT = {
    "not UTF-8": (b'{"text": "iyi"}\n{"text": "k\xf6t\xfc"}\n', "x.jsonl, line 2: not UTF-8 (byte 11 of the line)"),
    "broken JSON": (b'{"text": "iyi"}\n{"text": "iyi"\n', "x.jsonl, line 2: not JSON"),
    "no text": (b'{"content": "iyi"}\n', 'x.jsonl, line 1: the record has no "text"'),
    "text is a number": (b'{"text": 5}\n', 'x.jsonl, line 1: "text" must be a string, not a number'),
    "empty file": (b"", "no text in any document"),
    "empty documents": (b'{"text": ""}\n{"text": ""}\n', "no text in any document"),
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_bad_text_is_refused_and_leaves_nothing(sample_tokenizer, tmp_path, out, case):
    data, message = BAD_TEXT[case]
    source = tmp_path / "x.jsonl"
    source.write_bytes(data)
    assert message in refusal(prepare(source, sample_tokenizer, out / "x"))
    assert contents(out) == {}


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_cut_file_is_refused_and_leaves_nothing(sample_corpus, sample_tokenizer, tmp_path, out, suffix):
    data = (sample_corpus / "validation.jsonl.zst").read_bytes()
    if suffix == "gz":
        data = gzip.compress(zstandard.ZstdDecompressor().decompress(data))
    source = tmp_path / f"x.jsonl.{suffix}"
    source.write_bytes(data[: len(data) * 2 // 3])
    assert f"x.jsonl.{suffix}: the compressed file is cut or broken" in refusal(prepare(source, sample_tokenizer, out / "x"))
    assert contents(out) == {}


def test_missing_files_and_tokenizers_are_refused(sample_tokenizer, tmp_path, out):
    source = write_jsonl(tmp_path / "x.jsonl", [{"text": "bir"}])
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "tokenizer.json").write_text("{}")
    (broken / "tokenizer_config.json").write_text("{}")
    for arguments, message in [
        ((tmp_path / "none.jsonl", sample_tokenizer), "none.jsonl, given by --input, is not a file"),
        ((source, tmp_path / "none"), "none is not a folder"),
        ((source, tmp_path), "tokenizer.json is missing"),
        ((source, broken), "tokenizer.json is broken"),
    ]:
        assert message in refusal(prepare(*arguments, out / "x"))
    assert contents(out) == {}
    assert "x.jsonl is a file where a folder is needed" in refusal(prepare(source, sample_tokenizer, source / "x"))


@pytest.mark.parametrize("limit", [8 << 10, 140 << 10])  # bytes; the .bin is 400 KB and the .idx 84 KB
def test_a_full_disk_is_one_sentence_and_the_older_corpus_stays(sample_corpus, sample_tokenizer, tmp_path, out, limit):
    old = write_jsonl(tmp_path / "x.jsonl", [{"text": "eski"}])
    tokenize_corpus([old], sample_tokenizer, out / "x")
    before = contents(out)
    done = prepare(sample_corpus / "validation.jsonl.zst", sample_tokenizer, out / "x", True, file_size_limit=limit)
    assert "x.bin: the disk is full" in refusal(done)
    assert contents(out) == before
