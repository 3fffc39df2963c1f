"""Fetch the two scripts that pages draw with, so that the book reads without a network.

MathJax (formulas) and mermaid (diagrams) go into ``book/_static/vendor/``: from npm, or, for
MathJax where there is no npm, from a Python package. Versions and checksums are pinned below.
What cannot be fetched is left out, and the pages then say so instead of loading it from a network.
``AXE`` checks the pages in the tests, and does not become part of them.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "_static" / "vendor"
TOOLS = Path(__file__).resolve().parent.parent.parent / "_build" / "tools"
TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Source:
    """One pinned archive: ``tool`` is "npm" or "pip"; ``checksum`` is "algorithm-base64"."""

    tool: str
    spec: str
    checksum: str
    root: str  # folder inside the archive that ``Asset.keep`` is relative to


@dataclass(frozen=True)
class Asset:
    """One library: where its files come from, in order of preference, and which are kept."""

    name: str
    version: str
    script: str
    keep: tuple[str, ...]
    sources: tuple[Source, ...]
    in_pages: bool = True

    @property
    def folder(self) -> Path:
        return (VENDOR if self.in_pages else TOOLS) / self.name

    def ready(self) -> bool:
        """True if this very version lies in the vendor folder, complete."""
        stamp = self.folder / "VERSION"
        return stamp.is_file() and stamp.read_text() == self.version


ASSETS = (
    Asset(
        name="mathjax",
        version="3.2.2",
        script="tex-mml-chtml.js",
        keep=("tex-mml-chtml.js", "output/chtml/fonts/", "input/tex/extensions/"),
        sources=(
            Source(
                "npm",
                "mathjax@3.2.2",
                "sha512-Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1v"
                "O+geW0OhGw==",
                "package/es5/",
            ),
            Source(
                "pip",
                "django-static-mathjax==3.2.2.1",
                "sha256-Ba0Qn9nl2dOAx2OJaJt/Uj6cy396hcHrlix1ZOrHYB0=",
                "mathjax/static/mathjax/es5/",
            ),
        ),
    ),
    Asset(
        name="mermaid",
        version="11.17.2",
        script="mermaid.min.js",
        keep=("mermaid.min.js",),
        sources=(
            Source(
                "npm",
                "mermaid@11.17.2",
                "sha512-V6K3C8EBdEsPFZXSKMJe6ppQOENxuHARr9GvHX4hh47lAbhMRD9qf4oEK7LoaRQxULMa80/qt5gH"
                "O73aCleBBg==",
                "package/dist/",
            ),
        ),
    ),
)

AXE = Asset(
    name="axe",
    version="4.14.1",
    script="axe.min.js",
    keep=("axe.min.js",),
    sources=(
        Source(
            "npm",
            "axe-core@4.14.1",
            "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVG"
            "tQ==",
            "package/",
        ),
    ),
    in_pages=False,
)


class Unavailable(Exception):
    """An asset could not be had from one source; the text says why."""


def command(source: Source) -> list[str]:
    """The command that puts the source's archive into the current folder."""
    if source.tool == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise Unavailable("npm is not installed")
        return [npm, "pack", "--silent", source.spec]
    return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", source.spec]


def download(source: Source, folder: Path) -> Path:
    """Fetch the source's archive into ``folder`` and check its checksum."""
    try:
        done = subprocess.run(
            command(source), cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{source.tool} gave nothing in {TIMEOUT_SECONDS} s") from None
    archives = [*folder.glob("*.tgz"), *folder.glob("*.whl")]
    if done.returncode != 0 or len(archives) != 1:
        last = (done.stderr.strip() or done.stdout.strip() or "no archive came").splitlines()[-1]
        why = last.removeprefix("ERROR: ").removesuffix(".")
        raise Unavailable(f"{source.tool} could not fetch {source.spec} ({why})")
    algorithm, expected = source.checksum.split("-", 1)
    digest = hashlib.new(algorithm, archives[0].read_bytes()).digest()
    if base64.b64encode(digest).decode() != expected:
        raise Unavailable(f"{source.spec} does not have the pinned checksum: it was not used")
    return archives[0]


def unpack(archive: Path, asset: Asset, root: str) -> None:
    """Put the files that the asset keeps into its vendor folder; the version stamp comes last."""
    shutil.rmtree(asset.folder, ignore_errors=True)
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as whl:
            files = {name: whl.read(name) for name in whl.namelist() if name.startswith(root)}
    else:
        with tarfile.open(archive) as tar:
            files = {
                member.name: tar.extractfile(member).read()
                for member in tar.getmembers()
                if member.isfile() and member.name.startswith(root)
            }
    folders = [entry for entry in asset.keep if entry.endswith("/")]
    for name, content in files.items():
        path = name.removeprefix(root)
        if path in asset.keep or any(path.startswith(folder) for folder in folders):
            target = asset.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    if not (asset.folder / asset.script).is_file():
        raise Unavailable(f"{archive.name} holds no {root}{asset.script}")
    (asset.folder / "VERSION").write_text(asset.version)


def fetch(asset: Asset) -> str:
    """Make the asset ready. Returns "" if it is, else one sentence on why it is not."""
    if asset.ready():
        return ""
    reasons = []
    for source in asset.sources:
        with tempfile.TemporaryDirectory() as folder:
            try:
                unpack(download(source, Path(folder)), asset, source.root)
                return ""
            except Unavailable as reason:
                reasons.append(str(reason))
    return f"{asset.name} {asset.version} is missing: {'; '.join(reasons)}."


def main() -> None:
    for asset in ASSETS:
        print(fetch(asset) or f"{asset.name} {asset.version} is ready in {asset.folder}")


if __name__ == "__main__":
    main()
