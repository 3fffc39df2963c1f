"""The doors to the environment agree: pyproject.toml, constraints.txt, environment.yml."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())


def pins() -> dict[str, str]:
    """name → exact version, of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(name): version.strip() for name, version in pairs}


def requirements() -> list[Requirement]:
    """Everything that pyproject.toml asks for, extras included."""
    groups = [PROJECT["dependencies"], *PROJECT.get("optional-dependencies", {}).values()]
    return [Requirement(line) for group in groups for line in group]


def test_conda_installs_the_project_and_nothing_else():
    """Its pip section is pyproject.toml's, by installing the project, under the constraints."""
    conda = [entry for entry in CONDA["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert pip == ["--constraint constraints.txt", "--editable ."]
    assert [entry.partition("=")[0] for entry in conda] == ["python", "pip"]


def test_conda_python_is_one_the_project_allows():
    (python,) = [entry for entry in CONDA["dependencies"] if str(entry).startswith("python=")]
    version = python.removeprefix("python=")
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{version}.0")


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_each_requirement_has_a_pin_in_its_range(requirement: Requirement):
    pin = pins().get(canonicalize_name(requirement.name))
    assert pin, f"constraints.txt has no line for {requirement.name}"
    assert requirement.specifier.contains(pin), f"{requirement} excludes the pin {pin}"


@pytest.mark.parametrize("requirement", requirements(), ids=lambda r: r.name)
def test_what_is_installed_is_what_was_pinned(requirement: Requirement):
    try:
        installed = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{requirement.name} belongs to an extra that is not installed")
    assert installed.partition("+")[0] == pins()[canonicalize_name(requirement.name)]
