"""Bring the page assets of package-lock.json into static/vendor; quick where nothing changed.

npm is the one in .venv (from the nodejs wheel), else the machine's. Standard library alone.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "static" / "vendor"
MODULES = ROOT / "node_modules"
ICONS = ROOT / "static" / "icons.txt"
STAMP = VENDOR / "stamp.txt"
FILES = {
    "htmx/htmx.min.js": "htmx.org/dist/htmx.min.js",
    "idiomorph/idiomorph-ext.min.js": "idiomorph/dist/idiomorph-ext.min.js",
    "tabler/tabler.min.css": "@tabler/core/dist/css/tabler.min.css",
    "tabler/tabler.min.js": "@tabler/core/dist/js/tabler.min.js",
}


def main() -> None:
    """Fetch, copy and build what is missing or out of date."""
    wanted = fingerprint("package-lock.json", "static/icons.txt", "scripts/fetch_assets.py")
    if STAMP.exists() and STAMP.read_text() == wanted and all((VENDOR / name).exists() for name in FILES):
        return
    fetch_packages()
    for name, source in FILES.items():
        write(VENDOR / name, re.sub(r"\n?(//|/\*)# sourceMappingURL=.*", "", (MODULES / source).read_text()))
    write(VENDOR / "tabler-icons" / "sprite.svg", sprite())
    write(STAMP, wanted)


def fingerprint(*names: str) -> str:
    """Of the named files."""
    digest = hashlib.sha256()
    for name in names:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def fetch_packages() -> None:
    """Fill node_modules with exactly what the lock names, integrity checked by npm."""
    stamp, wanted = MODULES / "stamp.txt", fingerprint("package-lock.json")
    if stamp.exists() and stamp.read_text() == wanted:
        return
    own = ROOT / ".venv" / "bin" / "npm"
    npm = str(own) if own.exists() else shutil.which("npm")
    if npm is None:
        sys.exit("The page assets need npm: run `make setup`, which brings its own.")
    print("Fetching the page assets …", flush=True)
    if subprocess.run([npm, "ci", "--no-progress", "--loglevel=error"], cwd=ROOT, check=False).returncode != 0:
        sys.exit("The page assets could not be fetched; the lines above say why.")
    stamp.write_text(wanted)


def sprite() -> str:
    """One SVG with a symbol for each icon that static/icons.txt names."""
    symbols = []
    for name in ICONS.read_text().split():
        source = MODULES / "@tabler" / "icons" / "icons" / "outline" / f"{name}.svg"
        if not source.exists():
            sys.exit(f"static/icons.txt: there is no Tabler icon named {name}")
        found = re.search(r"<svg\b[^>]*>(.*)</svg>", source.read_text(), re.DOTALL)
        body = found.group(1).strip() if found else ""
        symbols.append(f'<symbol id="tabler-{name}" viewBox="0 0 24 24">{body}</symbol>\n')
    return f'<svg xmlns="http://www.w3.org/2000/svg">\n{"".join(symbols)}</svg>\n'


def write(path: Path, text: str) -> None:
    """Replace a file whole, so that a page never gets half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)


if __name__ == "__main__":
    main()
