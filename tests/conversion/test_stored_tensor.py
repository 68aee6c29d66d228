"""Any part of a tensor in an archive inside a file is what torch reads; files that are none are told apart."""

import io
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion.stored_tensor import StoredTensor
from mecellem.errors import UserError


def archive_of(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def stored_in(path: Path, value: object, before: int = 0) -> StoredTensor:
    """The tensor found behind that many other bytes, with another archive behind it."""
    content = archive_of(value)
    path.write_bytes(b"\1" * before + content + archive_of(torch.zeros(3)))
    return StoredTensor.find(path, before, len(content))


@settings(max_examples=60)
@given(data=st.data())
def test_any_part_of_any_layout(data, tmp_path_factory):
    """Axes in any order, views that begin inside of their storage, archives at odd bytes."""
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    shape = data.draw(st.lists(st.integers(1, 5), max_size=3))
    tensor = torch.randn([size + 1 for size in shape]).to(dtype)[tuple(slice(1, None) for _ in shape)]
    tensor = tensor.permute(data.draw(st.permutations(range(len(shape)))))
    stored = stored_in(tmp_path_factory.mktemp("file") / "data", tensor, data.draw(st.integers(0, 200)))
    assert stored.shape == tuple(tensor.shape) and stored.dtype == dtype
    place = []
    for size in tensor.shape:
        start = data.draw(st.integers(0, size - 1))
        place.append(slice(start, data.draw(st.integers(start + 1, size))))
    assert torch.equal(stored.read(tuple(place)), tensor[tuple(place)])


def test_a_part_takes_the_memory_of_that_part(tmp_path: Path):
    stored = stored_in(tmp_path / "data", torch.randn(1000, 8))
    assert stored.read((slice(10, 12), slice(0, 8))).untyped_storage().nbytes() == 2 * 8 * 4


def test_what_is_no_tensor(tmp_path: Path):
    path = tmp_path / "data"
    with pytest.raises(UserError, match=r"data cannot be loaded \(it holds a list in the place of a tensor\)"):
        stored_in(path, [torch.ones(2)])
    for content in (b"", b"no archive", archive_of(torch.ones(9))[:-30]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"data cannot be loaded \(.*\): the checkpoint is damaged, use another") as caught:
            StoredTensor.find(path, 0, len(content))
        assert "weights_only" not in str(caught.value)  # torch's own words advise to run what the file says


def test_a_file_that_is_cut_or_removed_after_it_was_found(tmp_path: Path):
    path = tmp_path / "data"
    stored = stored_in(path, torch.ones(4, 4))
    path.write_bytes(path.read_bytes()[: stored.begin + 63])
    assert torch.equal(stored.read((slice(0, 3), slice(0, 4))), torch.ones(3, 4))
    with pytest.raises(UserError, match="it ends inside of a tensor"):
        stored.read((slice(3, 4), slice(0, 4)))
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        stored.read((slice(0, 1), slice(0, 4)))
