"""Arrays of layers in .npz and .safetensors files."""

from __future__ import annotations

import copy
import pickle
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nn_cases import layers, needs_safetensors, randomized, unchanged

from fastnorm import nn

Array = np.ndarray


@pytest.fixture(params=[".npz", ".safetensors"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file to write, of each format whose packages are installed."""
    if request.param == ".safetensors":
        needs_safetensors()
    return tmp_path / f"model{request.param}"


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("layer", [case for case in layers() if case.values[0].state_dict()])
def test_a_layer_comes_back(layer: nn.Layer, path: Path) -> None:
    source, target = randomized(copy.deepcopy(layer)), copy.deepcopy(layer)
    nn.save(source, str(path))
    state = nn.load(str(path))
    assert_same(state, source.state_dict())
    target.load_state_dict(state)
    assert unchanged(target, source.state_dict())


def test_layers_of_a_model_come_back_by_their_names(path: Path) -> None:
    stem, head = randomized(nn.BatchNorm2d(3)), randomized(nn.LayerNorm(5, dtype=np.float64))
    nn.save({"stem.norm": stem, "head": head, "file": np.arange(3), "logit.scale": 2.5}, path)
    state = nn.load(path)
    expected = {f"stem.norm.{name}": array for name, array in stem.state_dict().items()}
    expected |= {f"head.{name}": array for name, array in head.state_dict().items()}
    assert_same(state, expected | {"file": np.arange(3), "logit.scale": np.array(2.5)})
    assert unchanged(nn.from_state_dict(state, "stem.norm"), stem.state_dict())
    assert unchanged(nn.from_state_dict(state, "head", kind="LayerNorm"), head.state_dict())


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint16, np.int64, np.float16, np.float32, np.float64])
def test_dtypes_come_back(dtype: Any, path: Path) -> None:
    arrays = {"a": np.arange(6).reshape(2, 3).astype(dtype), "empty": np.zeros((0, 3), dtype), "0d": np.ones((), dtype)}
    nn.save(arrays, path)
    assert_same(nn.load(path), arrays)


def test_strides_and_byte_order_do_not_matter(path: Path) -> None:
    x = np.arange(12.0).reshape(3, 4)
    arrays = {"transposed": x.T, "reversed": x[::-1, ::2], "swapped": x.astype(">f8")}
    nn.save(arrays, path)
    for name, array in nn.load(path).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_bfloat16_comes_back_from_safetensors(tmp_path: Path) -> None:
    needs_safetensors()
    import ml_dtypes

    layer = randomized(nn.LayerNorm(5, dtype=ml_dtypes.bfloat16))
    nn.save(layer, tmp_path / "a.safetensors")
    state = nn.load(tmp_path / "a.safetensors")
    assert_same(state, layer.state_dict())
    made = nn.from_state_dict(state, kind="LayerNorm")
    assert made.weight.dtype == ml_dtypes.bfloat16
    with pytest.raises(ValueError, match=r"save: weight is of bfloat16, which .npz cannot tell"):
        nn.save(layer, tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


def test_files_of_the_packages_themselves_can_be_read(tmp_path: Path) -> None:
    arrays = {"weight": np.arange(3.0), "steps": np.array(7)}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    assert_same(nn.load(tmp_path / "a.npz"), arrays)
    nn.save(arrays, tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz") as archive:
        assert_same(dict(archive), arrays)
    needs_safetensors()
    from safetensors.numpy import load_file, save_file

    save_file(arrays, tmp_path / "a.safetensors", metadata={"format": "np"})
    assert_same(nn.load(tmp_path / "a.safetensors"), arrays)
    nn.save(arrays, tmp_path / "b.safetensors")
    assert_same(load_file(tmp_path / "b.safetensors"), arrays)


# What is refused


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ([("a", np.ones(2))], TypeError, "save: state must be a layer or a mapping, got list"),
        ({1: np.ones(2)}, TypeError, "save: the keys of state must be str, got int"),
        ({"good": np.ones(2), "bad": np.array(["a"])}, TypeError, "save: bad must have a real number dtype"),
        ({"bad": np.array([None])}, TypeError, "save: bad must have a real number dtype"),
        ({"a": nn.RMSNorm(2), "a.weight": np.ones(2)}, ValueError, "save: two arrays are named 'a.weight'"),
    ],
)
def test_what_save_refuses_leaves_the_file_alone(state: Any, error: type[Exception], message: str, path: Path) -> None:
    path.write_bytes(b"as it was")
    with pytest.raises(error, match=message):
        nn.save(state, path)
    assert path.read_bytes() == b"as it was"


@pytest.mark.parametrize("name", ["model", "model.pt", "model.npy", "model.npz.bak"])
def test_other_endings(name: str, tmp_path: Path) -> None:
    target = tmp_path / name
    with pytest.raises(ValueError, match=r"save: path must end in .npz or .safetensors, got '.*model"):
        nn.save(nn.RMSNorm(3), target)
    assert not target.exists()
    with pytest.raises(ValueError, match=r"load: path must end in .npz or .safetensors, got '.*model"):
        nn.load(target)


@pytest.mark.parametrize("target", [3, None], ids=str)
def test_a_path_that_is_none(target: Any) -> None:
    with pytest.raises(TypeError, match=f"save: path must be a str or a path, got {type(target).__name__}"):
        nn.save(nn.LayerNorm(3), target)
    with pytest.raises(TypeError, match=f"load: path must be a str or a path, got {type(target).__name__}"):
        nn.load(target)


def test_a_missing_file_is_an_os_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        nn.load(path)


class Trap:
    """Has a pickle write a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.write_text, (self.target, "sprung")


def test_a_file_is_replaced_whole_or_not_at_all(path: Path) -> None:
    resource = pytest.importorskip("resource", reason="files cannot be kept short here")
    nn.save({"a": np.arange(3)}, path)
    path.chmod(0o640)
    kept = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))  # as a full disk
    try:
        for target in (path, path.with_name(f"new{path.suffix}")):
            with pytest.raises(OSError, match="too large"):
                nn.save({"a": np.arange(4000)}, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == kept
    assert list(path.parent.iterdir()) == [path]
    link = path.with_name(f"link{path.suffix}")
    link.symlink_to(path.name)
    nn.save({"a": np.arange(5)}, link)
    assert link.is_symlink()
    assert nn.load(path)["a"].size == 5
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_none_may_stand_beside_is_written_in_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nn.save({"a": np.arange(3)}, path)

    def refused(**keywords: Any) -> Any:
        raise PermissionError(path.parent)

    monkeypatch.setattr(tempfile, "mkstemp", refused)
    nn.save({"a": np.arange(4)}, path)
    assert nn.load(path)["a"].size == 4


def test_names_that_no_file_can_hold(path: Path) -> None:
    with pytest.raises(ValueError, match=r"save: '\\ud800' is no name"):
        nn.save({"\ud800": np.arange(3)}, path)
    assert not path.exists()
    longest = {"n" * 65531: np.arange(3)}
    nn.save(longest, path)
    assert list(nn.load(path)) == list(longest)
    if path.suffix == ".npz":
        with pytest.raises(ValueError, match=r"save: .npz takes names of at most 65531 bytes, got 65532"):
            nn.save({"n" * 65532: np.arange(3)}, path)


def test_pickles_and_damaged_files_are_refused(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "sprung"
    nn.save(nn.LayerNorm(500), path)
    whole = path.read_bytes()
    middle = whole[: len(whole) // 2]
    for content in (b"", b"no archive at all", middle, pickle.dumps(Trap(target)), b"\x93NUMPY" + whole):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"load: .* is not a readable .(npz|safetensors) file: "):
            nn.load(path)
    if path.suffix == ".npz":
        np.savez(path, trap=np.array([Trap(target)], dtype=object))
        with pytest.raises(ValueError, match=r"is not a readable .npz file"):
            nn.load(path)
        flipped = bytearray(whole)
        flipped[1000] ^= 1  # which its checksum tells
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"is not a readable .npz file"):
            nn.load(path)
    assert not target.exists()


@pytest.mark.parametrize("missing", ["safetensors", "ml_dtypes"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for call in (lambda path: nn.save(nn.RMSNorm(3), path), nn.load):
        with pytest.raises(ImportError, match=rf"{missing}.*pip install 'fastnorm\[safetensors\]'"):
            call(tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_names_that_archives_use_for_themselves(tmp_path: Path) -> None:
    nn.save({"__metadata__": np.ones(2), "x.npy.y": np.ones(2)}, tmp_path / "a.npz")
    assert set(nn.load(tmp_path / "a.npz")) == {"__metadata__", "x.npy.y"}
    with pytest.raises(ValueError, match="at most"):
        nn.save({"\u00e9" * 40000: np.ones(1)}, tmp_path / "b.npz")


def test_a_name_that_safetensors_uses_for_itself(tmp_path: Path) -> None:
    needs_safetensors()
    with pytest.raises(ValueError, match="another use for the name"):
        nn.save({"__metadata__": np.ones(2)}, tmp_path / "a.safetensors")


def test_a_file_is_replaced_where_there_is_no_folder_for_temporary_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nn.save(nn.LayerNorm(3), tmp_path / "a.npz")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    nn.save(nn.LayerNorm(5), tmp_path / "a.npz")
    assert nn.load(tmp_path / "a.npz")["weight"].shape == (5,)
