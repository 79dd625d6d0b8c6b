"""Makes .venv with zoo-bench and what it is developed with, on a machine that has little: `make setup`.

    python3 tools/bootstrap.py            make .venv, or find in a moment that it is up to date
    python3 tools/bootstrap.py --hint     say how to put zoo-bench on the PATH

It needs no virtual environment, no writable system Python and no home directory. A Python 3.10 or newer is
looked for in $PYTHON (then nothing else is tried), the interpreter that runs this, the PATH and pyenv. The
packages are those of requirements/dev.txt, by their hashes, installed by uv: the one on the PATH, else one
that pip puts into .zoo-bench/uv. Standard library only and Python 3.6 syntax, so that a Python that is too
old can still say what to do.
"""

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from typing import Dict, Iterator, List, Optional, Tuple

OLDEST = (3, 10)
NEWEST_MINOR = 14
OLDEST_UV = (0, 5)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
STATE = os.path.join(ROOT, ".zoo-bench")
OWN_UV = os.path.join(STATE, "uv", "bin", "uv")
LOCK = os.path.join(ROOT, "requirements", "dev.txt")
UV_LOCK = os.path.join(ROOT, "requirements", "uv.txt")
STAMP = os.path.join(VENV, "zoo-bench-stamp")
# What .venv is made from. The sources are not among it: it points at them.
INPUTS = [LOCK, *(os.path.join(ROOT, name) for name in ("setup.py", "pyproject.toml", "tools/bootstrap.py"))]
ASK = "import json, sys; print(json.dumps([sys.version_info[:2], getattr(sys, '_base_executable', None)]))"
# As in bench/zoo_bench/installer.py, which says why.
SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)

INSTALL_PYTHON = """\
Install one (Debian and Ubuntu: apt-get install python3; pyenv: pyenv install 3.13) and run make again, or
name one that is not on the PATH: make setup PYTHON=/path/to/python3.13"""
INSTALL_UV = """\
uv could not be installed. Do one of these and run make again:
    apt-get install python3-venv, or python3-pip (Debian and Ubuntu)
    install uv so that it is on the PATH (pipx install uv, brew install uv, conda install uv)"""


class SetupError(Exception):
    """Something is missing that this script cannot make; the message says what to do."""


def main(arguments: List[str]) -> int:
    """Make .venv, or only print the hint; return the exit code."""
    if arguments not in ([], ["--hint"]):
        print(__doc__)
        return 2
    try:
        if arguments:
            print(path_hint())
        else:
            set_up()
    except SetupError as error:
        print(f"zoo-bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def set_up() -> None:
    """Make .venv unless it is up to date."""
    wanted = os.environ.get("PYTHON") or ""
    stamp = fingerprint(wanted)
    if os.path.exists(VENV_PYTHON) and read(STAMP) == stamp:
        return
    python, too_old = find_python(wanted)
    uv = find_uv() or (install_uv() if python else "")
    if os.path.exists(VENV):
        shutil.rmtree(VENV)
    make_venv(uv, python, too_old)
    say("installing the packages of requirements/dev.txt into .venv (once)")
    into = ["--python", VENV_PYTHON]
    sync = ["pip", "sync", *into, "--require-hashes", LOCK]
    editable = ["pip", "install", *into, "--no-deps", "--no-build-isolation", "--editable", ROOT]
    for command in ([uv, *sync], [uv, *editable]):
        if run(command) != 0:
            raise SetupError("this failed, see above: " + " ".join(command))
    with open(STAMP, "w") as stream:
        stream.write(stamp)


def make_venv(uv: str, python: str, too_old: List[str]) -> None:
    """Make an empty .venv; where no Python was found, uv may have one of its own or know where to get one."""
    chosen = python or ">={}.{},<3.{}".format(*OLDEST, NEWEST_MINOR + 1)
    if uv:
        say(f"making .venv with {python or 'a Python of uv'}")
        if run([uv, "venv", "--no-project", "--python", chosen, VENV]) == 0:
            return
    if python:
        raise SetupError(f"uv could not make .venv with {python}, see above")
    found = ", ".join(too_old) or "none at all"
    raise SetupError("Python {}.{} or newer is needed; found: {}.\n{}".format(*OLDEST, found, INSTALL_PYTHON))


def fingerprint(wanted: str) -> str:
    """Digest of all that .venv is made from: where it lies, the interpreter asked for, and the files."""
    digest = hashlib.sha256(json.dumps([ROOT, wanted]).encode())
    for path in INPUTS:
        with open(path, "rb") as stream:
            digest.update(hashlib.sha256(stream.read()).digest())
    return digest.hexdigest()


def find_python(wanted: str) -> Tuple[str, List[str]]:
    """Return a Python that is new enough, or "" and those that are not.

    Raises SetupError when the one that was asked for, `wanted`, will not do.
    """
    if wanted:
        version, path = ask(wanted)
        if version < OLDEST:
            what = "is Python {}.{}".format(*version) if version else "does not run"
            raise SetupError("PYTHON={} {}; name a Python {}.{} or newer".format(wanted, what, *OLDEST))
        return path, []
    too_old = []
    for candidate in candidates():
        version, path = ask(candidate)
        if version >= OLDEST:
            return path, []
        if version:
            too_old.append("{} ({}.{})".format(candidate, *version))
    return "", too_old


def candidates() -> List[str]:
    """Return interpreters that exist, whatever their version, the most natural first."""
    names = ["python3"] + [f"python3.{minor}" for minor in range(NEWEST_MINOR, 5, -1)] + ["python"]
    found = [sys.executable] + [shutil.which(name) or "" for name in names]
    versions = os.path.join(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"), "versions")
    if os.path.isdir(versions):
        newest_first = sorted(os.listdir(versions), key=numbers, reverse=True)
        found += [os.path.join(versions, name, "bin", "python") for name in newest_first]
    return [path for path in dict.fromkeys(found) if path]


def ask(python: str) -> Tuple[Tuple[int, ...], str]:
    """Return an interpreter's version, () when it does not run, and its path.

    Of a virtual environment's interpreter it is the path of the one it was made from.
    """
    try:
        version, base = json.loads(attempt([python, "-I", "-c", ASK]))
    except ValueError:  # a pyenv shim of a version that is not active, say
        return (), python
    return tuple(version), base or shutil.which(python) or python


def find_uv() -> str:
    """Return the path of uv: of the one on the PATH, or one installed here before; "" without one."""
    paths = (shutil.which("uv") or "", OWN_UV)
    return next((path for path in paths if uv_version(path) >= OLDEST_UV), "")


def install_uv() -> str:
    """Install uv into .zoo-bench/uv with any pip there is, and return its path. Raises SetupError."""
    folder = os.path.dirname(os.path.dirname(OWN_UV))
    say("installing uv into .zoo-bench/uv")
    os.makedirs(STATE, exist_ok=True)
    tried = []
    for pip in pips():
        shutil.rmtree(folder, ignore_errors=True)
        # A target of its own is allowed where the system's Python is marked as externally managed (PEP 668).
        command = [*pip, "install", "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", UV_LOCK]
        printed = attempt([*command, "--target", folder])
        if uv_version(OWN_UV) >= OLDEST_UV:
            return OWN_UV
        tried.append("$ {}\n{}".format(" ".join(command), "\n".join(printed.splitlines()[-4:])))
    raise SetupError("{}\n{}".format("\n".join(tried) or "no Python here has pip or ensurepip", INSTALL_UV))


def uv_version(path: str) -> Tuple[int, ...]:
    """Return uv's version, or () when it does not run."""
    words = attempt([path, "--version"]).split()
    return numbers(words[1]) if len(words) > 1 and words[0] == "uv" else ()


def pips() -> Iterator[List[str]]:
    """Yield commands that run pip: that of any Python here, one that ensurepip makes, Debian's."""
    for python in candidates():
        if attempt([python, "-m", "pip", "--version"]).startswith("pip "):
            yield [python, "-m", "pip"]
    folder = os.path.join(STATE, "pip")
    made = os.path.join(folder, "bin", "python")
    for python in candidates():
        shutil.rmtree(folder, ignore_errors=True)
        attempt([python, "-m", "venv", folder])
        if attempt([made, "-m", "pip", "--version"]).startswith("pip "):
            yield [made, "-m", "pip"]
    pip = debian_pip()
    if pip:
        for python in candidates():
            yield [python, pip]


def debian_pip() -> str:
    """Return the folder of a pip that runs without being installed, "" where there is none.

    Debian and Ubuntu leave pip and ensurepip out of python3. Their package of pip's wheel can be fetched and
    unpacked without being root.
    """
    folder = os.path.join(STATE, "debian-pip")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    attempt(["apt-get", "download", "python3-pip-whl"], folder)
    for package in glob.glob(os.path.join(folder, "*.deb")):
        attempt(["dpkg-deb", "--extract", package, folder])
    for wheel in glob.glob(os.path.join(folder, "usr", "share", "python-wheels", "pip-*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        return os.path.join(folder, "pip")
    return ""


def attempt(command: List[str], folder: str = ROOT) -> str:
    """Run a command that may fail or not exist, in `folder`; return what it printed."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=variables(),
        )
    except OSError as error:
        return str(error)
    return done.stdout.decode(errors="replace").strip()


def run(command: List[str]) -> int:
    """Run a command with its errors shown, and its progress when somebody watches; return its exit code."""
    watched = [] if sys.stderr.isatty() else ["--quiet"]
    return subprocess.call([*command, *watched], stdin=subprocess.DEVNULL, env=variables())


def variables() -> Dict[str, str]:
    """Return the user's variables (mirrors, proxies) without those that point at another environment."""
    foreign = ("VIRTUAL_ENV", "CONDA_PREFIX", "UV_SYSTEM_PYTHON", "UV_PYTHON", "PIP_TARGET", "PIP_PREFIX")
    kept = {key: value for key, value in os.environ.items() if key not in foreign and not key.startswith("PYTHON")}
    kept["PIP_USER"] = "0"
    kept["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    for certificates in SYSTEM_CERTIFICATES:
        if os.path.exists(certificates):
            kept.setdefault("SSL_CERT_FILE", certificates)
    if not os.access(kept.get("HOME") or "/nonexistent", os.W_OK):
        kept.setdefault("UV_CACHE_DIR", os.path.join(STATE, "uv-cache"))
    return kept


def path_hint() -> str:
    """Say how to reach zoo-bench from a shell."""
    folder = os.path.join(VENV, "bin")
    found = shutil.which("zoo-bench")
    if found and os.path.dirname(os.path.abspath(found)) == folder:
        return "\nzoo-bench is on your PATH: try zoo-bench --help"
    return f"""
zoo-bench is installed in .venv. To put it on the PATH of this shell:

    export PATH="{folder}:$PATH"

Add that line to your shell's start-up file to keep it. Then try: zoo-bench --help"""


def numbers(text: str) -> Tuple[int, ...]:
    """Return the leading numbers of a version: (3, 10, 13) for 3.10.13."""
    found = []
    for part in text.split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)


def read(path: str) -> Optional[str]:
    """Return a file's text, None when there is no such file."""
    if not os.path.exists(path):
        return None
    with open(path) as stream:
        return stream.read()


def say(line: str) -> None:
    """Tell the user what takes its time."""
    print(f"zoo-bench: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
