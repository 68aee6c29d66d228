import pytest

from mecellem.errors import UserError
from mecellem.manifest import CorpusManifest, TokenizerEntry, read_manifest
from preprocessing.tokens.commit import open_pair, settle

MANIFEST = CorpusManifest(
    documents=1,
    tokens=1,
    dtype="uint16",
    tokenizer=TokenizerEntry(sha256="0", vocab_size=1, eod_id=0),
    files={},
    sources=[],
    versions={},
)


def write(prefix, text, manifest=MANIFEST):
    with open_pair(prefix) as pair:
        pair.bin.write(text)
        pair.idx.write(text[::-1])
        pair.manifest = manifest


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_three_appear_and_nothing_else(tmp_path):
    write(tmp_path / "a" / "x", b"abc")
    found = contents(tmp_path / "a")
    assert (found.pop("x.bin"), found.pop("x.idx")) == (b"abc", b"cba")
    assert list(found) == ["x.manifest.json"]
    assert read_manifest(tmp_path / "a" / "x") == MANIFEST
    assert settle(tmp_path / "a" / "x") is None


@pytest.mark.parametrize("older", [False, True])
def test_nothing_changes_when_the_block_fails(tmp_path, older):
    if older:
        write(tmp_path / "x", b"older")
    before = contents(tmp_path)
    with pytest.raises(RuntimeError), open_pair(tmp_path / "x") as pair:
        pair.bin.write(b"abc")
        raise RuntimeError
    assert contents(tmp_path) == before


class Killed(BaseException):
    """Passes through where a kill would end the process."""


def stop_before_rename(monkeypatch, name):
    """Like a kill before `name` is there, but for the temporary files, which are gone."""
    import os

    rename = os.replace

    def replace(source, target):
        if target.name == name:
            raise Killed
        rename(source, target)

    monkeypatch.setattr("mecellem.files.os.replace", replace)


def stopped(prefix, name, text=b"newer"):
    with pytest.MonkeyPatch.context() as patch:
        stop_before_rename(patch, name)
        with pytest.raises(Killed):
            write(prefix, text, MANIFEST.model_copy(update={"documents": 2}))


def test_a_commit_whose_files_are_all_there_is_finished(tmp_path):
    write(tmp_path / "x", b"older")
    stopped(tmp_path / "x", "x.manifest.json")
    assert set(contents(tmp_path)) == {"x.bin", "x.idx", ".x.commit.json"}
    assert settle(tmp_path / "x") is None
    assert read_manifest(tmp_path / "x").documents == 2
    assert set(contents(tmp_path)) == {"x.bin", "x.idx", "x.manifest.json"}


@pytest.mark.parametrize("name", ["x.bin", "x.idx"])
def test_remains_are_known_until_another_file_is_at_a_name(tmp_path, name):
    write(tmp_path / "x", b"older")
    stopped(tmp_path / "x", name)
    with pytest.raises(UserError, match="is missing"):
        read_manifest(tmp_path / "x")
    for _ in range(2):  # to ask changes nothing
        assert settle(tmp_path / "x").documents == 2
    (tmp_path / "x.idx").write_bytes(b"another tool's")
    assert settle(tmp_path / "x") is None


def test_an_older_corpus_that_is_still_whole_is_believed(tmp_path):
    write(tmp_path / "x", b"older")
    stopped(tmp_path / "x", "x.manifest.json")
    (tmp_path / "x.manifest.json").write_text(MANIFEST.model_dump_json())
    assert settle(tmp_path / "x") is None
    assert read_manifest(tmp_path / "x") == MANIFEST
    assert not (tmp_path / ".x.commit.json").exists()


@pytest.mark.parametrize("note", ["", "{", "{}"])
def test_a_note_that_is_none_says_nothing(tmp_path, note):
    write(tmp_path / "x", b"abc")
    (tmp_path / "x.manifest.json").unlink()
    (tmp_path / ".x.commit.json").write_text(note)
    assert settle(tmp_path / "x") is None
    assert (tmp_path / "x.bin").read_bytes() == b"abc"
