import json

import pytest
from pydantic import ValidationError

from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.manifest import (
    CorpusManifest,
    FileEntry,
    SourceRange,
    TokenizerEntry,
    manifest_path,
    read_manifest,
    verify_files,
    write_manifest,
)


@pytest.fixture
def prefix(tmp_path):
    """A prefix with a dot in its name, two files and their manifest."""
    prefix = tmp_path / "train.v1"
    entries = {}
    for suffix, content in ((".bin", b"0123456789"), (".idx", b"abc")):
        path = tmp_path / f"train.v1{suffix}"
        path.write_bytes(content)
        entries[path.name] = FileEntry(bytes=len(content), sha256=sha256_of(path))
    manifest = CorpusManifest(
        documents=1,
        tokens=5,
        dtype="uint16",
        tokenizer=TokenizerEntry(sha256="0" * 64, vocab_size=8192, eod_id=3),
        files=entries,
        sources=[SourceRange(first=0, last=1, source="söylev", licence="public domain")],
        versions={"tokenizers": "0.22"},
    )
    write_manifest(prefix, manifest)
    return prefix


def change(prefix, **changes):
    path = manifest_path(prefix)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_round_trip(prefix):
    manifest = read_manifest(prefix)
    assert manifest.sources[0].source == "söylev"
    assert manifest_path(prefix).name == "train.v1.manifest.json"
    write_manifest(prefix, manifest)
    assert read_manifest(prefix) == manifest
    verify_files(prefix, manifest)


def test_manifests_cannot_be_changed_in_memory(prefix):
    with pytest.raises(ValidationError):
        read_manifest(prefix).tokens = 6


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "Invalid JSON"),
        (b'{"format": "mecellem.corpus/1", "documents": 1}', "tokens: Field required"),
        (b"{}", "format: Field required"),
        (b"[]", "the file"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
)
def test_broken_manifest(prefix, content, sentence):
    manifest_path(prefix).write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        read_manifest(prefix)
    assert "train.v1.manifest.json" in str(caught.value)


def test_unknown_key_wrong_type_and_other_format(prefix):
    for changes, sentence in (
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"tokens": "many", "colour": None}, "tokens"),
        ({"tokens": 5, "format": "mecellem.corpus/2"}, "format"),
    ):
        text = manifest_path(prefix).read_text(encoding="utf-8")
        change(prefix, **changes)
        with pytest.raises(UserError, match=sentence):
            read_manifest(prefix)
        manifest_path(prefix).write_text(text, encoding="utf-8")


def test_newer_format_is_named_even_when_its_fields_differ(prefix):
    change(prefix, format="mecellem.corpus/2", colour="red")
    with pytest.raises(UserError, match=r"has format 'mecellem\.corpus/2', this version reads"):
        read_manifest(prefix)


def test_missing_manifest_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"t\.manifest\.json is missing: write the corpus with"):
        read_manifest(tmp_path / "t")


def test_changed_file(prefix):
    path = prefix.with_name("train.v1.bin")
    path.write_bytes(b"0123456780")
    manifest = read_manifest(prefix)
    verify_files(prefix, manifest, hashes=False)
    with pytest.raises(UserError, match="SHA-256 differs"):
        verify_files(prefix, manifest)


def test_truncated_and_missing_file(prefix):
    path, manifest = prefix.with_name("train.v1.bin"), read_manifest(prefix)
    path.write_bytes(b"0123")
    with pytest.raises(UserError, match="4 bytes, its manifest says 10: the file is truncated"):
        verify_files(prefix, manifest, hashes=False)
    path.unlink()
    with pytest.raises(UserError, match=r"train\.v1\.bin is missing though"):
        verify_files(prefix, manifest, hashes=False)
