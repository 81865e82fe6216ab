"""Builds and checks what is published: `python release.py`, or `make release`.

The wheel and the archive of sources are built from a copy of the last commit, in which relative
links of the README lead to the repository, as they must on the package index. Nothing is uploaded:
the last line says how, or what has to be done before. Needs hatchling and twine.
"""

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent
OUT = ROOT / "dist"
REPOSITORY = "https://github.com/monge-ot/monge"
PICTURES = "https://raw.githubusercontent.com/monge-ot/monge"
WANTED = ("monge/py.typed", "monge/show/report.html", "monge/show/explore/static/index.html")


def main() -> None:
    """Exits with code 1 where a file of the package is wrong; says what else is left to do."""
    version = re.findall(r'= "(.+)"', (ROOT / "src/monge/_core/version.py").read_text())[0]
    with tempfile.TemporaryDirectory() as folder:
        source = copied(Path(folder))
        readme = source / "README.md"
        readme.write_text(absolute(readme.read_text(encoding="utf-8"), version), encoding="utf-8")
        shutil.rmtree(OUT, ignore_errors=True)
        run(sys.executable, "-m", "hatchling", "build", "-d", str(OUT), cwd=source)
    wheel, archive = next(OUT.glob("*.whl")), next(OUT.glob("*.tar.gz"))
    run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(archive))
    print(f"built {wheel.name} and {archive.name} in {OUT.name}/")
    for wrong in misplaced(wheel, archive):
        sys.exit(f"release: {wrong}")
    left = unfinished(version)
    for line in left:
        print(f"before it is published: {line}")
    if not left:
        print(f"publish: git tag v{version} && git push --tags && twine upload {OUT.name}/*")


def run(*command: str, cwd: Path = ROOT) -> str:
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def copied(folder: Path) -> Path:
    """The files of the last commit."""
    archive = folder / "source.tar"
    run("git", "archive", "--output", str(archive), "HEAD")
    with tarfile.open(archive) as files:
        files.extractall(folder / "source", filter="data")
    return folder / "source"


def absolute(readme: str, version: str) -> str:
    """The README with links and pictures as they are in the repository at this version."""
    pictures = rf"\1({PICTURES}/v{version}/\2)"
    readme = re.sub(r"(!\[[^\]]*\])\((?!https?:)([^)]+)\)", pictures, readme)
    links = rf"]({REPOSITORY}/blob/v{version}/\1)"
    return re.sub(r"\]\((?!https?:|#)([^)]+)\)", links, readme)


def unfinished(version: str) -> list[str]:
    """What keeps a version from being published: files that disagree, or changes uncommitted."""
    found = []
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE):
        found.append(f"CHANGELOG.md has no date for {version}: write ## {version} - YYYY-MM-DD")
    if f"\nversion: {version}\n" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8"):
        found.append(f"CITATION.cff is of another version than {version}")
    if f"\ncopyright: monge {version}\n" not in (ROOT / "mkdocs.yml").read_text(encoding="utf-8"):
        found.append(f"mkdocs.yml is of another version than {version}")
    if run("git", "status", "--porcelain"):
        found.append("changes are not committed, and not in what was built")
    if run("git", "tag", "--list", f"v{version}"):
        found.append(f"v{version} is tagged already: raise the version")
    return found


def misplaced(wheel: Path, archive: Path) -> list[str]:
    """Files that are missing, or that should not be there."""
    names = zipfile.ZipFile(wheel).namelist()
    found = [f"{wheel.name} lacks {name}" for name in WANTED if name not in names]
    extra = [name for name in names if not name.startswith(("monge/", "monge-"))]
    found += [f"{wheel.name} holds {name}" for name in extra]
    with tarfile.open(archive) as sources:
        if not any(name.endswith("/LICENSE") for name in sources.getnames()):
            found.append(f"{archive.name} lacks LICENSE")
    return found


if __name__ == "__main__":
    main()
