#!/usr/bin/env bash
# Installs Chromium for the tests of the report, from Debian's packages, where there is no browser yet. Needs root.
set -euo pipefail

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" > /dev/null; then exit 0; fi
done
if ! command -v apt-get > /dev/null || [ "$(id -u)" != 0 ]; then
    echo "install_browser: needs apt-get and root; else install Chromium yourself, and put it on the PATH" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium > /dev/null
