"""What every public function documents."""

import inspect
import re

import pytest

import fastnorm

FUNCTIONS = [name for name in fastnorm.__all__ if inspect.isroutine(getattr(fastnorm, name))]
each_function = pytest.mark.parametrize("name", FUNCTIONS)


def sections(name: str) -> dict[str, str]:
    """Return the text of each section of a docstring, by its title; what comes first has none."""
    parts = re.split(r"^(\w+)\n-+\n", inspect.getdoc(getattr(fastnorm, name)) or "", flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


@each_function
def test_sections(name: str) -> None:
    signature = inspect.signature(getattr(fastnorm, name))
    expected = {"Examples"}
    if signature.parameters:
        expected |= {"Parameters", "Raises"}
    if "None" not in str(signature.return_annotation):
        expected |= {"Returns"}
    assert expected <= sections(name).keys()


@each_function
def test_parameters_are_those_of_the_signature(name: str) -> None:
    heads = re.findall(r"^(\w[\w, ]*?)(?: :.*)?$", sections(name).get("Parameters", ""), flags=re.MULTILINE)
    documented = [parameter for head in heads for parameter in head.split(", ")]
    assert sorted(documented) == sorted(inspect.signature(getattr(fastnorm, name)).parameters)


@each_function
def test_a_backend_that_cannot_run_is_an_error(name: str) -> None:
    if name != "config" and "backend" in inspect.signature(getattr(fastnorm, name)).parameters:
        assert re.search(r"^(RuntimeError|As in `\w+`)", sections(name)["Raises"], flags=re.MULTILINE)
