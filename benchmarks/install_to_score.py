"""Times the way from `pip install` in an empty environment to the first score of one image, and says where it goes.

    python benchmarks/install_to_score.py [--cached] [--keep FOLDER] [--out install.json]

The wheel is built from the checkout first, which is not counted, for a user downloads it. Then, in an environment that
holds pip alone: packages are chosen and downloaded, installed from where they lie (unpacked, compiled to byte code),
and `carzero predict` scores the bundled image, twice: files are not in memory at first. `pip install` does the first
two in one go. pip is set up as it is for you; packages come from where it takes them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_LARGEST = 6
_PREDICT = (
    "import sys, carzero; from carzero.__main__ import main; "
    "sys.argv = ['carzero', 'predict', str(carzero.example_film()), '--labels', 'pneumonia']; main()"
)


def time_command(command: list[object], **environment: str) -> tuple[float, str]:
    """Seconds of wall-clock time, and what it prints.

    Raises:
        RuntimeError: it fails.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [str(each) for each in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=tempfile.gettempdir(),  # not the checkout, whose source would be found first
        env={**os.environ, **environment},
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr[-2000:]}")
    return seconds, done.stdout


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@dataclass(frozen=True, slots=True)
class Way:
    """What was measured.

    Attributes:
        seconds: of each part of the way, in its order.
        score_again_s: of a second score.
        packages: how many were downloaded.
        downloaded_mb: their size, in 10^6 bytes.
        largest_downloads: sizes of the largest of them, likewise.
        largest_installed: of what they became.
    """

    seconds: dict[str, float]
    score_again_s: float
    packages: int
    downloaded_mb: float
    largest_downloads: dict[str, float]
    largest_installed: dict[str, float]


def measure_sizes(folder: Path) -> dict[str, float]:
    """Sizes of what is in a folder, in 10^6 bytes, the largest first."""
    sizes = {}
    for entry in folder.iterdir():
        files = [entry] if entry.is_file() else [file for file in entry.rglob("*") if file.is_file()]
        sizes[entry.name] = round(sum(file.stat().st_size for file in files) / 1e6, 1)
    return dict(sorted(sizes.items(), key=lambda each: -each[1]))


def measure(folder: Path, *, cached: bool) -> Way:
    """Goes the way once, in a folder that is empty."""
    wheel = build_wheel(folder / "wheel")
    time_command([sys.executable, "-m", "venv", folder / "env"])
    python, packages = folder / "env" / "bin" / "python", folder / "packages"
    pip = [python, "-m", "pip", "--disable-pip-version-check", *([] if cached else ["--no-cache-dir"])]
    constraints = ["-c", ROOT / "constraints.txt"]
    download, _ = time_command([*pip, "download", "--quiet", *constraints, "-d", packages, wheel])
    offline = ["--no-index", "--find-links", packages]
    install, _ = time_command([*pip, "install", "--quiet", *offline, *constraints, wheel])
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    scores = [time_command([python, "-P", "-c", _PREDICT], HF_HUB_OFFLINE="1") for _ in range(2)]
    if "chest.dcm" not in scores[0][1]:
        raise RuntimeError(f"no score was printed: {scores[0][1]!r}")
    downloads = measure_sizes(packages)
    return Way(
        {"chosen and downloaded": download, "installed": install, "first score": scores[0][0]},
        scores[1][0],
        len(downloads),
        round(sum(downloads.values()), 1),
        dict(list(downloads.items())[:_LARGEST]),
        dict(list(measure_sizes(site).items())[:_LARGEST]),
    )


def main() -> None:
    """Prints the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cached", action="store_true", help="let pip take what it has downloaded before")
    parser.add_argument("--keep", type=Path, help="an empty folder for environment and packages, which stays")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = measure((asked.keep or Path(temporary)).absolute(), cached=asked.cached)
    whole = sum(found.seconds.values())
    for name, value in found.seconds.items():
        print(f"{name:<24}{value:8.1f} s{value / whole:7.0%}")
    print(f"{'install to first score':<24}{whole:8.1f} s")
    print(f"{'a second score':<24}{found.score_again_s:8.1f} s")
    load = [round(each, 1) for each in os.getloadavg()]
    print(f"{found.packages} packages, {found.downloaded_mb} MB downloaded; load of the machine {load}")
    for title, sizes in (("downloads", found.largest_downloads), ("installed", found.largest_installed)):
        print(f"largest {title}:", ", ".join(f"{name} {mb} MB" for name, mb in sizes.items()))
    if asked.out:
        about = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
            "python": platform.python_version(),
            "load": load,
        }
        asked.out.write_text(json.dumps({**about, **asdict(found)}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
