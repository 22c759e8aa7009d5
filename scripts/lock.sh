#!/bin/sh
# Write the lock files anew: hashes, no host names. Newest versions that the .in files and package.json allow.
set -eu
cd "$(dirname "$0")/.."
if ! command -v uv >/dev/null 2>&1; then
    python3 -m venv build/uv && build/uv/bin/pip install --quiet uv
    PATH="$PWD/build/uv/bin:$PATH"
fi
for name in requirements requirements-dev; do
    uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
        --no-emit-index-url "$name.in" --output-file "$name.txt"
done
npm install --package-lock-only --no-progress
# Funding links are host names, too, and say nothing about what is installed.
.venv/bin/python - <<'PYTHON'
import json, pathlib
path = pathlib.Path("package-lock.json")
lock = json.loads(path.read_text())
for package in lock["packages"].values():
    package.pop("funding", None)
path.write_text(json.dumps(lock, indent=2) + "\n")
PYTHON
