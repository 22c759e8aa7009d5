#!/bin/sh
# Chromium for the browser tests, where it is missing and this machine lets us install it.
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" -eq 0 ]; then as_root=; else as_root="sudo -n"; fi
if command -v apt-get >/dev/null 2>&1 && $as_root true 2>/dev/null; then
    echo "Installing Chromium for the browser tests …"
    export DEBIAN_FRONTEND=noninteractive
    if $as_root apt-get update -qq && $as_root apt-get install -qq -y --no-install-recommends chromium >/dev/null; then
        exit 0
    fi
fi
echo "Chromium is not here and could not be installed: the browser tests will fail. Install the package chromium." >&2
