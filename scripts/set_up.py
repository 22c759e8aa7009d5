"""Make .venv, the `briefly-admin` command in it and the page assets; quick where nothing changed.

Runs on any Python ≥ 3.11 with the standard library alone. No build back end is needed: the checkout goes onto the
path of .venv, and the command is written here.
"""

import fcntl
import hashlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "set-up.stamp"
LOCKS = ("requirements.txt", "requirements-dev.txt")
COMMAND = """\
#!/bin/sh
'''exec' {python} "$0" "$@"
' '''
import sys

from briefly_admin.cli import main

sys.exit(main())
"""


def main() -> int:
    """Set up; 0 if all is there."""
    with (ROOT / "pyproject.toml").open() as marker:
        fcntl.flock(marker, fcntl.LOCK_EX)  # `make run` and `make test` may begin at once
        wanted = fingerprint()
        if not works() or not STAMP.exists() or STAMP.read_text() != wanted:
            install()
            STAMP.write_text(wanted)
        return subprocess.run([PYTHON, ROOT / "scripts" / "fetch_assets.py"], check=False).returncode


def fingerprint() -> str:
    """Of everything that the environment is made from."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in (*LOCKS, "scripts/set_up.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def works() -> bool:
    """Whether .venv is there, its Python still is, and it has a pip."""
    try:
        return subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def install() -> None:
    """Make .venv and fill it from the locks."""
    if not works():
        print("Making .venv …", flush=True)
        shutil.rmtree(VENV, ignore_errors=True)
        if subprocess.run([sys.executable, "-m", "venv", VENV], check=False).returncode != 0:
            sys.exit(
                "Python cannot make a virtual environment here. On Debian and Ubuntu: apt-get install python3-venv"
            )
    print("Installing the locked packages …", flush=True)
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--prefer-binary"]
    locks = [argument for name in LOCKS for argument in ("-r", ROOT / name)]
    if subprocess.run([*pip, "--require-hashes", *locks], check=False).returncode != 0:
        sys.exit("The packages could not be installed; the lines above say why.")
    site = subprocess.check_output([PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    Path(site.strip(), "briefly_admin.pth").write_text(f"{ROOT}\n")
    command = VENV / "bin" / "briefly-admin"
    command.write_text(COMMAND.format(python=shlex.quote(str(PYTHON))))
    command.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main())
