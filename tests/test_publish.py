"""Publishing: to a folder and to a real S3-compatible server, and what `verify` says of what was published."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import fsspec
import pytest
from conftest import REPOSITORY, Zoo
from pydantic import ValidationError
from test_trial import schedule
from web import TOKEN, answering, hub, serving

from zoo_bench.datasets.coco import file_sha256
from zoo_bench.destination import Destination, PublishError, StoppedError
from zoo_bench.matrix import Publish
from zoo_bench.publishing import publish
from zoo_bench.record import Checkpoint, PublishedFile, Record

RETINANET = ("--select", "*retinanet*")
PHASES = ["train", "infer", "evaluate", "publish"]


def publishing(zoo: Zoo, address: str, url: str | None = None) -> Zoo:
    """Let the workspace's cells be published."""
    target = {"address": address} if url is None else {"address": address, "url": url}
    zoo.change({"publish": target, "profiles": {"quick": {"set": {"phases": PHASES}}}})
    return zoo


def verified(zoo: Zoo, *options: str) -> tuple[int, str]:
    (zoo.root / "MODEL_ZOO.md").write_text(zoo.call("render").stdout, encoding="utf-8")
    done = zoo.call("verify", "MODEL_ZOO.md", *options)
    return done.returncode, done.stdout + done.stderr


def copied(zoo: Zoo, target: Path) -> Zoo:
    """A copy of a workspace, with its files, that a test may change."""
    shutil.copytree(zoo.root, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".zoo-bench"))
    other = Zoo(target)
    other.change(zoo.matrix)
    return other


# ---------------------------------------------------------------- a folder


@pytest.fixture(scope="module")
def in_folder(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A workspace whose cells were published into its folder `downloads`. Tests must not change it."""
    zoo = publishing(Zoo(tmp_path_factory.mktemp("in_folder")), "downloads")
    zoo.options(box_ap=0.375, mask_ap=0.341)
    done = zoo.call("run")
    assert done.returncode == 0, done.stderr
    return zoo


def files_of(record: Record) -> tuple[PublishedFile, PublishedFile]:
    assert record.published is not None
    return record.published.model, record.published.log


def test_a_cell_is_published_after_its_other_phases_and_its_record_says_where(in_folder: Zoo) -> None:
    records = in_folder.records
    assert [record.phases_done for record in records] == [tuple(PHASES[:3]), ("publish",)] * 2
    for record in records[1::2]:
        assert record.status == "succeeded"
        assert record.checkpoint is not None
        for file, suffix in zip(files_of(record), (".safetensors", ".log"), strict=True):
            path = in_folder.root / file.url
            assert path.parent == in_folder.root / "downloads"
            assert path.name == f"{record.cell_id.split('/')[1]}-{file.sha256[:8]}{suffix}"
            assert file_sha256(path) == file.sha256
            assert path.stat().st_size == file.bytes
        assert files_of(record)[0].sha256 == record.checkpoint.sha256


def test_the_document_links_what_was_published_and_verify_fetches_it(in_folder: Zoo) -> None:
    text = in_folder.call("render").stdout
    for record in in_folder.records[1::2]:
        model, log = files_of(record)
        assert f"[model]({model.url}) \\| [log]({log.url})" in text
    assert "results/runs" not in text
    status, told = verified(in_folder, "--links")
    assert (status, told.count("MODEL_ZOO.md:")) == (0, 2)
    assert "MODEL_ZOO.md: 4 published files are there, and are what was published" in told


def test_show_tells_where_a_model_was_published(in_folder: Zoo) -> None:
    record = in_folder.records[1]
    model, log = files_of(record)
    for word in (record.run_id, record.cell_id):
        told = in_folder.call("show", word).stdout
        assert f"{model.url}, SHA-256 {model.sha256}" in told
        assert log.url in told
    told = in_folder.call("show", record.cell_id, "--json").stdout
    assert json.loads(told)["published"]["model"]["url"] == model.url


def test_status_shows_the_figures_though_something_was_published_since(in_folder: Zoo) -> None:
    told = in_folder.call("status").stdout
    assert "37.5" in told
    assert told.count("succeeded") == 2


def test_a_run_of_what_is_published_has_nothing_to_do(in_folder: Zoo) -> None:
    assert "nothing to do" in in_folder.call("run").stderr


def test_another_address_is_published_to_without_training_again(in_folder: Zoo, tmp_path: Path) -> None:
    zoo = publishing(copied(in_folder, tmp_path), "elsewhere")
    assert "publish  " in zoo.call("plan", *RETINANET).stdout
    before = zoo.call("render").stdout
    done = zoo.call("run", *RETINANET)
    assert done.returncode == 0, done.stderr
    newest = zoo.records[-1]
    assert newest.phases_done == newest.phases == ("publish",)
    assert newest.command == ()
    model, log = files_of(newest)
    assert model.url.startswith("elsewhere/")
    assert (tmp_path / model.url).is_file()
    # Its figures stay those of the run that measured them, and only its links are others.
    old = files_of(next(r for r in in_folder.records if r.cell_id == newest.cell_id and r.published))
    assert zoo.call("render").stdout == before.replace(old[0].url, model.url).replace(old[1].url, log.url)


def test_a_published_file_that_changed_or_is_gone_is_told(in_folder: Zoo, tmp_path: Path) -> None:
    zoo = copied(in_folder, tmp_path)
    first, second = (files_of(record)[0] for record in zoo.records[1::2])
    (tmp_path / first.url).write_text("something else")
    (tmp_path / second.url).unlink()
    status, told = verified(zoo, "--links")
    assert status == 1
    assert f"MODEL_ZOO.md: {first.url}: differs from what was published" in told
    assert f"MODEL_ZOO.md: {second.url}: No such file or directory" in told
    (tmp_path / first.url).write_text("longer than it was" * 1000)
    assert "is longer than the" in verified(zoo, "--links")[1]


def test_a_document_that_links_nothing_published_fails(finished: Zoo) -> None:
    status, told = verified(finished, "--links")
    assert status == 1
    assert "links nothing that was published" in told
    assert told.count(": was not published") == 4


def test_a_model_that_was_changed_after_its_run_is_not_published(zoo: Zoo) -> None:
    assert zoo.call("run", *RETINANET).returncode == 0
    checkpoint = zoo.records[0].checkpoint
    assert checkpoint is not None
    (zoo.root / checkpoint.file).write_text("other weights")
    done = publishing(zoo, "downloads").call("run", *RETINANET)
    assert done.returncode == 1
    assert "is not what was measured: its SHA-256 differs" in done.stdout
    assert not (zoo.root / "downloads").exists()


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "/wJalrXUtnFEMI/K7MDENG",
    "HF_TOKEN": "hf_abcdefgh\n",
    "PGPASSWORD": "correct horse",
    "DEPLOY_KEY": "-----BEGIN-----\nMIIEvQIBADANBg\n-----END-----",
}


def test_a_log_is_published_without_folders_and_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file = tmp_path / "key.json"
    key_file.write_text("{}")
    for name, value in {**SECRETS, "GOOGLE_APPLICATION_CREDENTIALS": str(key_file), "HOME": "/home/somebody"}.items():
        monkeypatch.setenv(name, value)
    lines = {
        f"{tmp_path}/results/x": "results/x",
        "/home/somebody/coco": "~/coco",
        "key /wJalrXUtnFEMI/K7MDENG!": "key ***!",
        "hf_abcdefgh, correct horse and MIIEvQIBADANBg": "***, *** and ***",
        "s3://me:pass@host/x https://ghp_0a1b@host/y": "s3://***@host/x https://***@host/y",
        f"--key {key_file}": "--key key.json",
        "x" * 2**20 + " correct horse": "[zoo-bench left out a line of more than a million characters]",
    }
    (tmp_path / "worker.log").write_bytes("\n".join(lines).encode() + b"\n\xff\n")
    (tmp_path / "cell-0.safetensors").write_text("weights")
    sha256 = file_sha256(tmp_path / "cell-0.safetensors")
    checkpoint = Checkpoint(file="cell-0.safetensors", sha256=sha256, bytes=7, trained=True, given=False)
    target = Destination.of(Publish(address="out"), tmp_path)
    published = publish(checkpoint, "worker.log", target, tmp_path, tmp_path, lambda *_: None)
    text = (tmp_path / published.log.url).read_text(encoding="utf-8")
    assert text.splitlines() == "\n".join([*lines.values(), "\N{REPLACEMENT CHARACTER}"]).splitlines()


def test_no_record_holds_a_credential(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    zoo.options(note="as correct horse says", fault={"phase": "train", "at": 3, "kind": "/wJalrXUtnFEMI/K7MDENG"})
    assert zoo.call("run", *RETINANET).returncode == 1
    record = zoo.records[0]
    assert record.reason == "train: scripted ***"
    assert record.cell["options"]["note"] == "as *** says"


# ---------------------------------------------------------------- what a matrix may say


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"address": "s3://bucket/zoo"}, "url: needed, since 's3://bucket/zoo' does not tell where readers find"),
        ({"address": "/srv/zoo"}, "url: needed, since '/srv/zoo' does not tell"),
        ({"address": "../zoo"}, "'../zoo' leaves the workspace"),
        ({"address": "~/zoo"}, "'~/zoo' leaves the workspace"),
        ({"address": "s3://id:secret@bucket/zoo", "url": "https://z/"}, "credentials come from the environment"),
        ({"address": "simplecache::s3://zoo", "url": "https://z/"}, "expected a folder or an address"),
        ({"address": "s3://zoo", "url": "https://me:pw@z/"}, "everybody reads it"),
        ({"address": "s3://zoo", "url": "javascript://z"}, "expected an address that browsers open"),
        ({"address": "s3://zoo", "url": "file:///etc"}, "expected an address that browsers open"),
        ({"address": "s3://zoo", "url": "FILE:/etc"}, "expected an address that browsers open"),
        ({"address": "s3://zoo", "url": "https://token@z/"}, "everybody reads it"),
        ({"address": "s3://zoo", "url": "https://z/my zoo"}, "expected an address that browsers open"),
        ({"address": "s3://zoo", "url": "https://z:port/"}, "Port could not be cast"),
        ({"address": "s3://zoo", "url": "%2Fetc"}, "expected a path in the workspace"),
        ({"address": "ssh://me@host/zoo", "url": "https://z/"}, "credentials come from the environment"),
        ({"address": "S3://bucket/zoo"}, "url: needed"),
        ({"address": "published", "url": "publisehd"}, "url: files in 'published' are not found under 'publisehd'"),
    ],
)
def test_addresses_that_would_not_do_are_refused(zoo: Zoo, values: dict[str, str], told: str) -> None:
    zoo.change({"publish": values})
    done = zoo.call("plan")
    assert done.returncode == 2
    assert told in done.stderr
    assert "matrix.yaml:" in done.stderr


def test_a_profile_that_publishes_needs_an_address_before_anything_starts(zoo: Zoo) -> None:
    zoo.change({"profiles": {"quick": {"set": {"phases": PHASES}}}})
    done = zoo.call("run")
    assert done.returncode == 2
    assert "phase publish: matrix.yaml does not say where to" in done.stderr
    assert zoo.records == ()


def test_only_what_was_trained_is_published_and_the_others_are_named(zoo: Zoo) -> None:
    assert zoo.call("run", *RETINANET, "--phases", "train").returncode == 0
    done = publishing(zoo, "downloads").call("run", "--phases", "publish")
    assert done.returncode == 0, done.stderr
    assert "fake/mask-rcnn_r50_fpn_1x_shapes: not published: not trained yet" in done.stderr
    assert zoo.records[-1].phases_done == ("publish",)


def test_an_address_in_memory_is_refused(zoo: Zoo) -> None:
    done = publishing(zoo, "memory://zoo", "https://zoo.example").call("run")
    assert done.returncode == 2
    assert "what is published there is gone when zoo-bench ends" in done.stderr


def test_an_address_of_an_unknown_kind_is_refused_before_anything_starts(zoo: Zoo) -> None:
    done = publishing(zoo, "gopher://zoo", "https://zoo.example").call("run")
    assert done.returncode == 2
    assert "gopher://zoo: Protocol not known: gopher" in done.stderr
    assert zoo.records == ()


# ---------------------------------------------------------------- S3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A real S3-compatible server on loopback, with a bucket `zoo` that everybody may read; its address."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "an-access-key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-key")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_ENDPOINT_URL", address)
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for(f"{address}/moto-api/", server)
            system = bucket()
            system.mkdir("zoo")
            readers = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::zoo/*"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [readers]})
            system.call_s3("put_bucket_policy", Bucket="zoo", Policy=policy)
            yield address
        finally:
            server.kill()
            server.wait()


def bucket() -> Any:
    """The server's files, as fsspec has them."""
    return fsspec.filesystem("s3", skip_instance_cache=True)


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, "the server ended"
        try:
            urlopen(address, timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def in_bucket(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A workspace whose cells were published to S3. Tests must not change what it published."""
    zoo = publishing(Zoo(tmp_path_factory.mktemp("in_bucket")), "s3://zoo/v1", f"{s3}/zoo/v1")
    zoo.options(box_ap=0.375, mask_ap=0.341)
    done = zoo.call("run")
    assert done.returncode == 0, done.stderr
    return zoo


def test_models_and_logs_go_to_s3_and_readers_fetch_them_without_credentials(
    in_bucket: Zoo, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [file for record in in_bucket.records[1::2] for file in files_of(record)]
    listed = {f"{s3}/{path}": size for path, size in bucket().du("zoo/v1", total=False).items()}
    assert listed == {file.url: file.bytes for file in files}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    status, told = verified(in_bucket, "--links")
    assert status == 0
    assert "4 published files are there" in told


def test_a_published_file_that_is_forbidden_changed_or_gone_is_told(in_bucket: Zoo, tmp_path: Path, s3: str) -> None:
    zoo = publishing(copied(in_bucket, tmp_path), "s3://zoo/v2", f"{s3}/zoo/v2")
    assert zoo.call("run", *RETINANET).returncode == 0
    files = files_of(zoo.records[-1])
    remote = [file.url.replace(s3 + "/", "") for file in files]
    system = bucket()
    system.pipe_file(remote[0], b"other weights")
    system.rm_file(remote[1])
    status, told = verified(zoo, "--links")
    assert status == 1
    assert f"MODEL_ZOO.md: {files[0].url}: differs from what was published" in told
    assert f"MODEL_ZOO.md: {files[1].url}: HTTP 404" in told
    assert told.count(f"MODEL_ZOO.md: {s3}") == 2, "the other cell's are there still"
    system.mkdir("private")
    publishing(zoo, "s3://private/v3", f"{s3}/private/v3")
    assert zoo.call("run", *RETINANET).returncode == 0
    status, told = verified(zoo, "--links")
    assert status == 1
    assert told.count("HTTP 403") == 2


def test_what_cannot_be_uploaded_fails_the_cell_and_the_next_run_only_publishes(zoo: Zoo, s3: str) -> None:
    publishing(zoo, "s3://later/v1", f"{s3}/later/v1")
    done = zoo.call("run", *RETINANET)
    assert done.returncode == 1
    measured, failed = zoo.records
    assert (measured.status, measured.phases_done) == ("succeeded", ("train", "infer", "evaluate"))
    assert (failed.status, failed.phases, failed.phases_done) == ("failed", ("publish",), ())
    assert "publish: s3://later/v1: not found: The specified bucket does not exist" in failed.reason
    assert "docs/publishing.md" in failed.reason
    bucket().mkdir("later")
    assert zoo.call("run", *RETINANET).returncode == 0
    assert zoo.records[-1].phases_done == ("publish",)
    text = zoo.call("render").stdout
    assert f"[model]({files_of(zoo.records[-1])[0].url})" in text
    assert "failed" not in text


def test_another_link_is_published_again(in_folder: Zoo, tmp_path: Path) -> None:
    zoo = publishing(copied(in_folder, tmp_path), "downloads", "https://zoo.example")
    assert zoo.call("run", *RETINANET).returncode == 0
    assert files_of(zoo.records[-1])[0].url.startswith("https://zoo.example/retinanet")
    assert "nothing to do" in zoo.call("run", *RETINANET).stderr


def test_a_finished_cell_is_not_trained_again_only_because_its_model_is_gone(in_folder: Zoo, tmp_path: Path) -> None:
    zoo = publishing(copied(in_folder, tmp_path), "elsewhere")
    shutil.rmtree(tmp_path / "results" / "runs")
    done = zoo.call("run")
    assert done.returncode == 0
    assert done.stderr.count("not published: the model of run") == 2
    assert "nothing to do" in done.stderr


def test_a_model_that_its_training_did_not_leave_is_told(zoo: Zoo) -> None:
    publishing(zoo, "downloads")
    folder = zoo.root / "models" / "fake"
    shutil.copytree(REPOSITORY / "models" / "fake", folder)
    shutil.copy(REPOSITORY / "models" / "__init__.py", folder.parent)
    text, size = (folder / "train.py").read_text(encoding="utf-8"), "    size = os.path.getsize(path)\n"
    assert text.count(size) == 1
    (folder / "train.py").write_text(text.replace(size, f"{size}    os.remove(path)\n"), encoding="utf-8")
    done = zoo.call("run", *RETINANET)
    assert done.returncode == 1
    assert [record.status for record in zoo.records] == ["succeeded", "failed"]
    assert zoo.records[1].reason.startswith("publish: the training left no model")


@pytest.mark.parametrize("url", ["../../etc/passwd", "/etc/passwd", "%2Fetc%2Fpasswd", "javascript:alert(1)"])
def test_a_record_cannot_make_a_document_link_what_is_not_in_the_workspace(in_folder: Zoo, url: str) -> None:
    record = in_folder.records[1].model_dump(mode="json")
    Record.model_validate(record)
    record["published"]["model"]["url"] = url
    with pytest.raises(ValidationError):
        Record.model_validate(record)


def test_an_upload_is_broken_off_when_somebody_asks_to_stop(s3: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(2**20))
    target = Destination.of(Publish(address="s3://zoo/stopped", url=f"{s3}/zoo/stopped"), tmp_path)

    def stop(_name: str, _done: int, _size: int) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        target.upload(path, stop)
    told: list[tuple[str, int, int]] = []
    target.upload(path, lambda *progress: told.append(progress))
    assert told[-1] == ("model.safetensors", 2**20, 2**20)


def test_wrong_credentials_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.log"
    path.write_text("x")
    with serving(answering(403)) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-access-key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-key")
        fsspec.filesystem("s3").clear_instance_cache()
        target = Destination.of(Publish(address="s3://zoo/x", url="https://zoo.example"), tmp_path)
        with pytest.raises(PublishError, match="s3://zoo/x: not allowed"):
            target.upload(path, lambda *_: None)
        assert "s3://zoo/x: not allowed" in target.probe()
    fsspec.filesystem("s3").clear_instance_cache()


def test_the_address_is_tried_before_the_first_long_cell(zoo: Zoo, s3: str) -> None:
    zoo.change(schedule(1200))
    zoo.options(iteration_s=0.0005)
    publishing(zoo, "s3://no-such-bucket/v1", f"{s3}/no-such-bucket/v1")
    done = zoo.call("run", *RETINANET)
    assert done.returncode == 2
    assert "publish: s3://no-such-bucket/v1: not found" in done.stderr
    assert zoo.records == ()
    publishing(zoo, "s3://zoo/tried", f"{s3}/zoo/tried")
    assert zoo.call("run", *RETINANET).returncode == 0
    # What was tried with leaves nothing behind.
    names = [name.rpartition("/")[2] for name in bucket().ls("zoo/tried")]
    assert sorted(name.rpartition(".")[2] for name in names) == ["log", "safetensors"]


# ---------------------------------------------------------------- web servers


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_link_that_a_reader_cannot_open_fails(in_folder: Zoo, tmp_path: Path, status: int) -> None:
    with serving(answering(status)) as address:
        zoo = publishing(copied(in_folder, tmp_path), "downloads2", address)
        assert zoo.call("run", *RETINANET).returncode == 0
        code, told = verified(zoo, "--links")
    assert code == 1
    assert told.count(f": HTTP {status}") == 2


def test_a_server_that_is_away_is_told(in_folder: Zoo, tmp_path: Path) -> None:
    zoo = publishing(copied(in_folder, tmp_path), "downloads2", f"http://127.0.0.1:{free_port()}/zoo")
    assert zoo.call("run", *RETINANET).returncode == 0
    code, told = verified(zoo, "--links")
    assert code == 1
    assert "Connection refused" in told


# ---------------------------------------------------------------- evaluated again


def test_published_models_are_evaluated_again(in_bucket: Zoo) -> None:
    before = len(in_bucket.records)
    status, told = verified(in_bucket, "--evaluate")
    assert (status, told.count("MODEL_ZOO.md: ")) == (0, 2), told
    assert "2 published models have the AP that the store has" in told
    assert len(in_bucket.records) == before, "it is no run of the zoo"
    left = [path for path in (in_bucket.root / ".zoo-bench" / "verify").iterdir() if path.is_dir()]
    assert left == [], "what it fetched and wrote is gone"


def test_an_evaluator_that_broke_is_found(in_folder: Zoo, tmp_path: Path) -> None:
    zoo = copied(in_folder, tmp_path)
    shutil.copytree(REPOSITORY / "models", tmp_path / "models", ignore=shutil.ignore_patterns("__pycache__"))
    worker = tmp_path / "models" / "fake" / "train.py"
    text = worker.read_text(encoding="utf-8")
    old = 'options.get("mask_ap", 0.5)'
    assert old in text
    worker.write_text(text.replace(old, f"{old} - 0.0006"), encoding="utf-8")
    (zoo.root / "MODEL_ZOO.md").write_text(zoo.call("render", "--no-stale-marks").stdout, encoding="utf-8")
    done = zoo.call("verify", "MODEL_ZOO.md", "--evaluate")
    assert done.returncode == 1
    assert "mask-rcnn_r50_fpn_1x_shapes: mask AP is 34.040 now, and 34.100 in the store" in done.stdout
    assert "box AP is" not in done.stdout
    assert "retinanet" not in done.stdout


def test_a_model_that_was_not_published_or_fails_is_told(in_folder: Zoo, finished: Zoo, tmp_path: Path) -> None:
    status, told = verified(finished, "--evaluate")
    assert status == 1
    assert told.count("its model was not published") == 2
    zoo = copied(in_folder, tmp_path)
    model = files_of(zoo.records[-1])[0]
    (tmp_path / model.url).unlink()
    status, told = verified(zoo, "--evaluate")
    assert status == 1
    assert f"{zoo.records[-1].cell_id}: {model.url}: No such file" in told
    assert "AP is" not in told


# ---------------------------------------------------------------- the Hugging Face Hub


def test_models_go_to_the_hub_by_its_own_client(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    with serving(hub("lab/zoo", files)) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        zoo.change(schedule(1200))
        zoo.options(iteration_s=0.0005)
        publishing(zoo, "hf://lab/zoo/v1")
        done = zoo.call("run", *RETINANET)
        assert done.returncode == 0, done.stderr
        model, log = files_of(zoo.records[-1])
        assert model.url.startswith(f"{address}/lab/zoo/resolve/main/v1/retinanet_r50_fpn_1x_shapes-")
        assert sorted(files) == sorted(file.url.partition("/main/")[2] for file in (model, log))
        assert verified(zoo, "--links")[0] == 0
        monkeypatch.setenv("HF_TOKEN", "hf_another")
        done = publishing(zoo, "hf://lab/zoo/v2").call("run", *RETINANET)
        assert done.returncode == 1
        assert re.search(r"publish: hf://lab/zoo/v2: .*401 UNAUTHORIZED", done.stdout)
