"""What is installed: every version has its hashes, and no bound admits a known hole."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHA256 = re.compile(r"--hash=sha256:([0-9a-f]{64})\b")


def pinned(name: str) -> dict[str, list[str]]:
    """The lines of a file by package, each with its continuations."""
    text = (ROOT / name).read_text("utf-8")
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    found: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        package = re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower()
        found.setdefault(package, []).append(line)
    return found


def test_every_version_of_the_constraints_has_hashes():
    constraints, lock = pinned("constraints.txt"), pinned("requirements.lock")
    assert constraints.keys() == lock.keys()
    for name, lines in lock.items():
        versions = {line.split()[0].partition("==")[2].removesuffix("+cpu") for line in lines}
        assert versions == {constraints[name][0].partition("==")[2]}, name
        for line in lines:
            found = SHA256.findall(line)
            assert 0 < len(found) == line.count("--hash=") == len(set(found)), name


def test_constraints_have_no_hashes():
    """With one, pip would refuse `--editable` beside them, and so `make` and CI."""
    assert "--hash" not in (ROOT / "constraints.txt").read_text("utf-8")


def test_the_build_backend_is_the_one_that_is_tested():
    built = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]
    assert built["requires"] == pinned("constraints.txt")["hatchling"]


@pytest.mark.parametrize(
    ("package", "sound"),
    [
        ("pillow", (12, 1, 1)),
        ("jinja2", (3, 1, 6)),
        ("torch", (2, 10)),
        ("scikit-learn", (1, 5)),
        ("starlette", (0, 49, 1)),
        ("h11", (0, 16)),
        ("onnx", (1, 20)),
        ("filelock", (4,)),
    ],
)
def test_bounds_admit_no_release_with_a_known_hole(package, sound):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    asked = [*project["dependencies"], *extras]
    found = [re.fullmatch(rf"(?i){package}>=([\d.]+).*", one) for one in asked]
    (bound,) = [match[1] for match in found if match]
    assert tuple(map(int, bound.split("."))) >= sound
