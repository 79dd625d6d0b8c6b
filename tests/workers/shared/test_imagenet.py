from __future__ import annotations

import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Iterator

import pytest

from models import worker
from models.imagenet import FILES, cache_folder, fetch, imagenet_file

CONTENT = b"weights"
NAME = f"resnet-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a real server hands out the good file, and one of the same name's kind with other content."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    (folder / "resnet-00000000.pth").write_bytes(CONTENT)
    monkeypatch.chdir(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: Any) -> None:
        pass


def test_a_file_is_fetched_once_and_whole(address: str, tmp_path: Path) -> None:
    path = tmp_path / "cache" / NAME
    fetch(address + NAME, path)
    assert path.read_bytes() == CONTENT
    assert [found.name for found in path.parent.iterdir()] == [NAME]


@pytest.mark.parametrize(
    ("name", "said"), [("resnet-00000000.pth", "does not begin with 00000000"), ("resnet-11111111.pth", "404")]
)
def test_what_is_not_the_file_is_not_kept_and_the_way_to_it_is_told(
    name: str, said: str, address: str, tmp_path: Path
) -> None:
    path = tmp_path / "cache" / name
    with pytest.raises(worker.WorkerError, match=said) as caught:
        fetch(address + name, path)
    assert caught.value.kind == "data"
    assert f"curl --location --output {path} {address}{name}" in str(caught.value)
    assert list(path.parent.iterdir()) == []


def test_a_file_in_torch_hubs_cache_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    expected = cache_folder() / FILES["r50"]
    expected.parent.mkdir(parents=True)
    expected.write_bytes(CONTENT)
    assert imagenet_file("r50") == expected


def test_without_a_network_the_way_to_the_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # A proxy that refuses every connection: the machine behaves as if it had no network.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(worker.WorkerError, match="curl --location --output") as caught:
        imagenet_file("r50")
    assert f"resnet50-0676ba61.pth are not in {tmp_path / 'hub' / 'checkpoints'}" in str(caught.value)
