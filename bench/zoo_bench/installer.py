"""Running uv, which makes virtual environments and installs locked packages into them."""

from __future__ import annotations

import os
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo_bench.errors import EnvironmentBuildError

Progress = Callable[[str], None]
LOG_LINES_SHOWN = 12
UV_OLDEST_PYTHON = (3, 8)  # of those that uv downloads; it works with older ones that are there
TOLD = ("Downloading", "Building", "Prepared", "Installed")
# The certificates of Debian and Alpine, of Fedora and Red Hat, and of SUSE. uv trusts a list of its own,
# which lacks the root of an organisation whose proxy signs again what it passes on; the system's has it.
SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)
# Variables that would send uv to another environment than the one it is told.
FOREIGN = ("VIRTUAL_ENV", "CONDA_PREFIX", "UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_TARGET", "UV_PREFIX")


@dataclass(frozen=True)
class Installer:
    """Runs uv with its output in the log and what a user wants to see of it in the progress.

    `cache` is where uv keeps downloads when there is no home directory to keep them in.
    """

    label: str
    cache: Path
    log_path: Path
    progress: Progress
    log: Callable[[str], object]

    def run(self, arguments: Sequence[str], advice: str) -> None:
        """Run one uv command.

        Raises:
            EnvironmentBuildError: with uv's last lines, and `advice` as its hint.
        """
        command = [uv_path(), *arguments]
        self.log(f"$ {' '.join(command)}\n")
        last: deque[str] = deque(maxlen=LOG_LINES_SHOWN)
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=uv_variables(self.cache),
        ) as process:
            try:
                for line in process.stdout or ():
                    self.log(line)
                    last.append(line.rstrip())
                    if line.lstrip().startswith(TOLD):
                        self.progress(f"{self.label}: {line.strip()}")
            except BaseException:
                process.terminate()  # the signal that ends us may have reached us alone, and uv would be waited for
                raise
        if process.returncode != 0:
            said = "\n".join(f"  {line}" for line in last if line)
            raise EnvironmentBuildError(
                f"{self.label}: the environment could not be built; uv said:\n{said}\n(all of it: {self.log_path})",
                advice,
            )


def uv_path() -> str:
    """Return the path of the uv that was installed with zoo-bench."""
    from uv import find_uv_bin  # only a build needs it

    return find_uv_bin()


def uv_variables(cache: Path) -> dict[str, str]:
    """Return the environment variables for uv: the user's (mirrors, proxies and caches count), made safe.

    `cache` is used where there is no home directory that can be written to.
    """
    variables = {key: value for key, value in os.environ.items() if key not in FOREIGN and not key.startswith("PYTHON")}
    certificates = next((path for path in SYSTEM_CERTIFICATES if os.path.exists(path)), None)
    if certificates:
        variables.setdefault("SSL_CERT_FILE", certificates)
    if not os.access(variables.get("HOME") or "/nonexistent", os.W_OK):
        variables.setdefault("UV_CACHE_DIR", str(cache))
    return variables
