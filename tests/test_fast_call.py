"""Functions that hand plain calls to the fast path first are otherwise functions like others."""

import copy
import inspect
import pickle
import pydoc
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnorm

fast_call = pytest.importorskip("fastnorm.backends._fast_call", reason="nothing is compiled")

FIRST = [name for name in fastnorm.__all__ if isinstance(getattr(fastnorm, name), fast_call.FastCall)]
each = pytest.mark.parametrize("name", FIRST)


class Lanes:
    """An entry that keeps what it was called with, and serves as it is told."""

    def __init__(self, result: Any) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.result = result

    def entry(self, *arguments: Any) -> Any:
        self.calls.append(arguments)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def body(x: Any, weight: Any = None, *, axis: int = -1, eps: float = 1e-5, backend: str | None = None) -> Any:
    """What the fast path does not serve."""
    return "body", x, weight, axis, eps, backend


def make(result: Any) -> tuple[Any, Lanes]:
    entries = Lanes(result)
    return fast_call.FastCall(body, entries, "entry", ("x", 7, "axis", "weight", "eps")), entries


def test_the_norms_for_plain_calls_are_among_them() -> None:
    norms = {"group_norm", "instance_norm", "l2_normalize", "layer_norm", "normalize", "pixel_norm", "rms_norm"}
    norms |= {"weight_norm"}
    scalers = {"max_abs_scale", "min_max_scale", "standardize"}
    clips = {"clip_by_norm", "clip_by_global_norm", "clip_by_value"}
    backward = {"group_norm", "instance_norm", "l2_normalize", "layer_norm", "pixel_norm", "rms_norm"}
    backward = {f"{name}_backward" for name in backward}
    assert set(FIRST) == norms | backward | scalers | clips | {"extrema", "moments"}


@each
def test_name_signature_and_documentation_are_those_of_the_function(name: str) -> None:
    function = getattr(fastnorm, name)
    assert function.__name__ == function.__qualname__ == name
    assert function.__module__.startswith(("fastnorm.norms.", "fastnorm.stats."))
    assert inspect.isroutine(function)
    assert isinstance(function, Callable)
    assert inspect.signature(function) == inspect.signature(inspect.unwrap(function))
    assert next(iter(inspect.signature(function).parameters)) in ("x", "v", "arrays", "dy")
    assert repr(function).startswith(f"<function {name} at ")
    assert inspect.getdoc(function) in inspect.cleandoc(function.__doc__)
    assert "Parameters" in pydoc.render_doc(function)


@each
def test_it_is_pickled_and_copied_by_name(name: str) -> None:
    function = getattr(fastnorm, name)
    assert pickle.loads(pickle.dumps(function)) is function
    assert copy.deepcopy(function) is function


def test_as_an_attribute_of_a_class_it_is_a_method() -> None:
    function, entries = make("served")
    holder = type("Holder", (), {"norm": function})
    assert holder.norm is function
    instance = holder()
    assert instance.norm() == "served"
    assert entries.calls == [(instance, 7, -1, None, 1e-5)]


@pytest.mark.parametrize(
    ("arguments", "keywords", "expected"),
    [
        ((1,), {}, (1, 7, -1, None, 1e-5)),
        ((1, 2), {}, (1, 7, -1, 2, 1e-5)),
        ((1,), {"eps": 3, "weight": 2}, (1, 7, -1, 2, 3)),
        ((), {"axis": 4, "x": 1, "backend": None}, (1, 7, 4, None, 1e-5)),
    ],
)
def test_the_fast_path_has_its_arguments_in_its_order(arguments: Any, keywords: Any, expected: Any) -> None:
    function, entries = make("served")
    assert function(*arguments, **keywords) == "served"
    assert entries.calls == [expected]


def test_arguments_that_are_unpacked_are_the_same() -> None:
    function, entries = make("served")
    positions, keywords = [1, 2], {"axis": 0}
    assert function(*positions, **keywords) == "served"
    assert entries.calls == [(1, 7, 0, 2, 1e-5)]
    assert function.__call__(1, axis=0) == ("body", 1, None, 0, 1e-5, None)


def test_an_entry_that_declines_leaves_the_call_to_the_body() -> None:
    function, entries = make(None)
    assert function(1, 2, axis=3) == ("body", 1, 2, 3, 1e-5, None)
    assert len(entries.calls) == 1


def test_what_the_fast_path_does_not_know_is_for_the_body() -> None:
    function, entries = make("served")
    assert function(1, backend="numba") == ("body", 1, None, -1, 1e-5, "numba")
    assert function(1, **{"".join(("a", "xis")): 0}) in ("served", ("body", 1, None, 0, 1e-5, None))
    assert all(call == (1, 7, 0, None, 1e-5) for call in entries.calls)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((), {}, r"body\(\) missing 1 required positional argument: 'x'"),
        ((1, 2, 3), {}, r"body\(\) takes from 1 to 2 positional arguments but 3 were given"),
        ((1,), {"x": 2}, r"body\(\) got multiple values for argument 'x'"),
        ((1,), {"axes": 2}, r"body\(\) got an unexpected keyword argument 'axes'"),
    ],
)
def test_wrong_calls_are_refused_as_by_the_body(arguments: Any, keywords: Any, message: str) -> None:
    function, entries = make("served")
    with pytest.raises(TypeError, match=message):
        function(*arguments, **keywords)
    assert not entries.calls


def test_an_error_of_the_fast_path_is_raised() -> None:
    function, _ = make(KeyError("of the entry"))
    with pytest.raises(KeyError, match="of the entry"):
        function(1)


def test_group_norm_is_told_how_many_groups_there_are() -> None:
    """The entry for groups has another for instances beside it: no number of groups does not mean the same."""
    x = np.ones((2, 6, 5), np.float32)
    with pytest.raises(TypeError, match="num_groups"):
        fastnorm.group_norm(x, None)
    with pytest.raises(TypeError, match="num_groups"):
        fastnorm.group_norm(x, "3")


def test_references_are_kept_in_balance() -> None:
    function, entries = make(None)
    marker = object()
    before = sys.getrefcount(marker)
    for _ in range(100):
        function(marker, marker, axis=0)
        with pytest.raises(TypeError):
            function(marker, x=marker)
    entries.calls.clear()
    assert sys.getrefcount(marker) == before
