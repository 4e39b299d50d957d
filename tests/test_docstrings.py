"""Docstring examples of losses, masking, backbones and transforms run and print what they show."""

import doctest
import importlib
import pkgutil

import pytest
import torch

PACKAGES = ("losses", "masking", "backbones", "transforms")


def module_names() -> list[str]:
    names = []
    for package in PACKAGES:
        root = importlib.import_module(f"maskclr_pl.{package}")
        names += [
            module.name for module in pkgutil.iter_modules(root.__path__, f"{root.__name__}.")
        ]
    return names


def examples(name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    return finder.find(module, globs={**vars(module), "torch": torch})


@pytest.mark.parametrize("name", module_names())
def test_examples_run(name: str) -> None:
    for example in examples(name):
        torch.manual_seed(0)
        result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
        assert result.failed == 0, f"{example.name}: see the captured output"


@pytest.mark.parametrize("package", PACKAGES[:3])
def test_public_classes_have_an_example(package: str) -> None:
    module = importlib.import_module(f"maskclr_pl.{package}")
    interfaces = {"LossTerm", "Masking", "PooledMasking", "Backbone"}
    classes = {name for name in module.__all__ if isinstance(getattr(module, name), type)}
    docs = {name: getattr(module, name).__doc__ or "" for name in classes - interfaces}
    missing = [name for name, doc in docs.items() if "Example:" not in doc]
    assert not missing
