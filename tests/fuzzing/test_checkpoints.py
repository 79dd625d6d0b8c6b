"""PyTorch's files of weights, as they are read without PyTorch: plain weights, or refused. Nothing in them is run."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import hostile, origins
from models import worker
from models.gluoncv import torch_file

# {"weight": a tensor of 3 x 2 on storage "0" of 6 numbers}, as torch.save writes it.
WEIGHTS = (
    b"\x80\x02}q\x00X\x06\x00\x00\x00weightctorch._utils\n_rebuild_tensor_v2\n("
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
    b"K\x00K\x03K\x02\x86K\x02K\x01\x86\x89ccollections\nOrderedDict\n)RtRs."
)
SHAPE = b"K\x03K\x02\x86K\x02K\x01\x86"  # (3, 2), and steps of (2, 1)
NUMBERS = struct.pack("<6f", *range(6))
CALLS = (
    b"cos\nmkdir\n(X\x06\x00\x00\x00pwnedxtR.",
    b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
    b"ctorch\nload\n)R.",
    b"cmodels.worker\nsys\n.",
    b"\x80\x04X\x02\x00\x00\x00osX\x05\x00\x00\x00mkdir\x93X\x06\x00\x00\x00pwnedx\x85R.",
    b"(ios\nmkdir\n.",
)


def zipped(content: bytes, numbers: bytes = NUMBERS, how: int = zipfile.ZIP_STORED) -> bytes:
    """A file as PyTorch writes it since 1.6."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", numbers)
    return stream.getvalue()


def legacy(content: bytes) -> bytes:
    """A file as PyTorch wrote it before."""
    head = [pickle.dumps(one, 2) for one in (torch_file.LEGACY_MAGIC, 1001, {})]
    return b"".join([*head, content, pickle.dumps(["0"], 2), struct.pack("<q", 6), NUMBERS])


def read(content: bytes) -> dict[str, object]:
    """The weights of a file."""
    path = origins.scratch() / "model.pth"
    path.write_bytes(content)
    return dict(torch_file.read_torch_file(path))


@pytest.mark.parametrize("write", [zipped, legacy])
def test_a_file_of_weights_is_read(write: object) -> None:
    assert callable(write)
    assert read(write(WEIGHTS))["weight"].tolist() == [[0, 1], [2, 3], [4, 5]]


files = (
    hostile.damaged(WEIGHTS).map(zipped)
    | hostile.damaged(WEIGHTS).map(legacy)
    | hostile.damaged(zipped(WEIGHTS))
    | hostile.damaged(legacy(WEIGHTS))
    | st.sampled_from(CALLS).flatmap(hostile.damaged).map(zipped)
)


@hostile.examined(200)
@given(files)
def test_a_checkpoint_is_plain_weights_or_refused(content: bytes) -> None:
    try:
        read(content)
    except worker.WorkerError as error:
        message = str(error)
        assert "is no PyTorch file of plain weights" in message
    assert not Path("pwnedx").exists()


@pytest.mark.parametrize("content", CALLS)
@pytest.mark.parametrize("write", [zipped, legacy])
def test_what_a_file_would_call_is_not_called(write: object, content: bytes) -> None:
    assert callable(write)
    assert "which weights do not need" in refused(write(content))
    assert not Path("pwnedx").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped(WEIGHTS, bytes(10**7), zipfile.ZIP_DEFLATED), "is larger than the file that it is in"),
        (zipped(WEIGHTS.replace(SHAPE, b"J\xff\xff\xff\x7fK\x02\x86K\x00K\x01\x86")), "is larger than its storage"),
        (zipped(WEIGHTS.replace(b"q\x00", b"r\xff\xff\xff\x7f")), "it numbers something 2147483647"),
        (legacy(WEIGHTS.replace(b"q\x00", b"p999999999\n")), "it numbers something 999999999"),
    ],
    ids=["compressed", "repeated", "numbered", "numbered in text"],
)  # fmt: skip
def test_a_small_file_cannot_become_a_large_one(content: bytes, words: str) -> None:
    assert words in refused(content)


def refused(content: bytes) -> str:
    """Why a file is refused."""
    with pytest.raises(worker.WorkerError) as caught:
        read(content)
    return str(caught.value)
