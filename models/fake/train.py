"""``python -m models.fake.train --job JOB``: a worker without any framework, scripted by its cell's options.

It goes through the phases of a cell as a real worker does, with the real protocol, so that the harness can be tested
from end to end in a second. ``options`` (all optional):

    iteration_s     seconds an iteration really takes (0.001)
    script          a JSON file: [{time_s, data_time_s, then}, ...], an entry an iteration; each ends when the sum of
                    all so far says so. then: "checkpoint" writes one after it, whose time the next entry has in it
    hash_bytes      bytes to hash in every iteration, on each of runtime.threads threads: work in place of time
    pid_file        a file to write the worker's process id to when training begins: a simulated node reads it there
    reserved_bytes  what the allocator is said to hold, reported about once a second
    image_s         seconds an image really takes in inference (0.001)
    hold_bytes      memory to allocate and touch during training (0)
    box_ap          what eval_result reports, a fraction (0.5); mask_ap likewise, for mask models
    child           true: start a child process that would outlive the worker; "session": in a session of its own
    fault           {phase, at, kind, says, bytes, unless}: at the at-th step of a phase (1: the first) print what it
                    says, and do one of KINDS; bytes: how many to print (flood), or to write in one line beside other
                    garbage; unless: a file that is made then, and whose presence prevents it

Standard library only and Python 3.6 syntax.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Dict, List

from models import worker

KINDS = (
    "error", "out_of_memory", "diverged", "exit", "kill", "segv", "hang", "burn", "deadlock", "deaf", "lie",
    "garbage", "other_protocol", "flood",
)  # fmt: skip
METRICS = [
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
]


def main(job: Dict[str, Any], events: worker.EventWriter) -> None:
    """Run the job's phases by the script in its cell."""
    cell, options = job["cell"], job["cell"]["options"]
    events.write("init_start")
    if options.get("child"):
        own_session = options["child"] == "session"
        words = [sys.executable, "-c", "import time; time.sleep(600)", job["paths"]["output"]]  # told by its words
        subprocess.Popen(words, start_new_session=own_session)
    events.write("init_stop", environment={"python": sys.version.split()[0]}, parameters=0, images={})
    events.write("run_start", phases=job["phases"])
    for phase in job["phases"]:
        events.phase = phase
        if phase == "train":
            train(job, events)
        elif phase == "infer":
            infer(cell["measure"], options, events)
        else:
            evaluate(cell["masks"], options, events)


def train(job: Dict[str, Any], events: worker.EventWriter) -> None:
    """Write a step an iteration, and a model that holds the cell's id."""
    cell, options = job["cell"], job["cell"]["options"]
    scheduled = cell["recipe"]["lr_schedule"]["iterations"]
    planned = min(scheduled, cell["measure"]["train_iterations"] or scheduled)
    held = bytearray(os.urandom(1)) * options.get("hold_bytes", 0)
    script = read_script(options, planned)
    if options.get("pid_file"):
        write_whole(options["pid_file"], str(os.getpid()) + "\n")
    events.write("epoch_start", epoch=1)
    reported_s = ended_s = due_s = time.monotonic()
    iteration = resumed(job, events)
    while iteration < planned and not (iteration and worker.has_enough(job)):
        entry = script[iteration]
        iteration += 1
        fault(options, "train", iteration, events)
        due_s += entry["time_s"]
        time.sleep(max(0.0, due_s - time.monotonic()))
        work(options.get("hash_bytes", 0), cell["runtime"]["threads"] or 1)
        started_s, ended_s = ended_s, time.monotonic()
        events.write(
            "step",
            iteration=iteration,
            iterations=planned,
            loss=1.0 / iteration,
            lr=cell["recipe"]["optimizer"]["lr"],
            iteration_time_s=ended_s - started_s,
            data_time_s=entry.get("data_time_s", 0.0),
            batch_size=cell["images_per_gpu"] * max(1, cell["gpus"]),
        )
        if entry.get("then") == "checkpoint":
            save(job, events, iteration, final=False, trained=False)
        if iteration % cell["runtime"]["checkpoint_interval"] == 0 or (job["trial"] and iteration == planned):
            keep(job, iteration)
        if options.get("reserved_bytes") and ended_s - reported_s >= 1.0:
            reported_s = ended_s
            report_memory(options["reserved_bytes"], events)
    events.write("epoch_stop", epoch=1)
    if options.get("reserved_bytes"):
        report_memory(options["reserved_bytes"], events)
    save(job, events, iteration, final=True, trained=iteration == scheduled)
    del held


def resumed(job: Dict[str, Any], events: worker.EventWriter) -> int:
    """The iterations that an interrupted training of the cell has done."""
    folder = job["paths"]["checkpoints"]
    done = max([0] + [int(name) for name in os.listdir(folder) if name.isdigit()]) if os.path.isdir(folder) else 0
    if done:
        events.write("train_resumed", iteration=done, path=folder)
    return done


def keep(job: Dict[str, Any], iteration: int) -> None:
    """Leave a state to be resumed from: an empty file whose name says it all."""
    folder = job["paths"]["checkpoints"]
    os.makedirs(folder, exist_ok=True)
    write_whole(os.path.join(folder, str(iteration)), "")


def work(count: int, threads: int) -> None:
    """Hash so many bytes on each of so many threads; hashing lets go of the interpreter's lock."""
    if count:
        workers = [threading.Thread(target=hashlib.sha256, args=(bytes(count),)) for _ in range(threads)]
        for one in workers:
            one.start()
        for one in workers:
            one.join()


def read_script(options: Dict[str, Any], planned: int) -> List[Dict[str, Any]]:
    """An entry for every iteration: the script's, or one like another."""
    if not options.get("script"):
        return [{"time_s": options.get("iteration_s", 0.001)}] * planned
    with open(options["script"], encoding="utf-8") as stream:
        script = json.load(stream)
    if len(script) < planned:
        raise worker.WorkerError(f"the script has {len(script)} iterations, the cell {planned}", kind="data")
    return script


def save(job: Dict[str, Any], events: worker.EventWriter, iteration: int, final: bool, trained: bool) -> None:
    """Write a model that holds the cell's id."""
    path = job["paths"]["model"]
    write_whole(path, job["cell"]["id"] + " " + job["run_id"])
    size = os.path.getsize(path)
    events.write("checkpoint_saved", path=path, iteration=iteration, final=final, trained=trained, bytes=size)


def report_memory(reserved_bytes: int, events: worker.EventWriter) -> None:
    """Report the scripted peaks."""
    events.write(
        "allocator_peak", rank=0, device="gpu:0", allocated_bytes=reserved_bytes, reserved_bytes=reserved_bytes
    )


def write_whole(path: str, text: str) -> None:
    """Write a file so that a reader sees all of it or none."""
    with open(path + ".tmp", "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(path + ".tmp", path)


def infer(measure: Dict[str, Any], options: Dict[str, Any], events: worker.EventWriter) -> None:
    """Write an infer_step an image; half of the time is forward, half is postprocess."""
    images, warmup = measure["infer_images"], measure["infer_warmup_images"]
    for index in range(1, warmup + images + 1):
        fault(options, "infer", index, events)
        started = time.monotonic()
        time.sleep(options.get("image_s", 0.001))
        half = (time.monotonic() - started) / 2
        events.write(
            "infer_step",
            index=index,
            images=warmup + images,
            image_id=index,
            load_s=0.0,
            preprocess_s=0.0,
            forward_s=half,
            postprocess_s=half,
            encode_s=0.0,
            detections=1,
            warmup=index <= warmup,
        )


def evaluate(masks: bool, options: Dict[str, Any], events: worker.EventWriter) -> None:
    """Report the scripted AP."""
    events.write("eval_start", images=1)
    fault(options, "evaluate", 1, events)
    events.write("eval_step", index=1, images=1)
    result = {"box": dict.fromkeys(METRICS, options.get("box_ap", 0.5))}
    if masks:
        result["mask"] = dict.fromkeys(METRICS, options.get("mask_ap", 0.5))
    events.write("eval_result", **result)


def fault(options: Dict[str, Any], phase: str, step: int, events: worker.EventWriter) -> None:
    """Do what the script says for this step, if anything."""
    script = options.get("fault") or {}
    if script.get("phase") != phase or script.get("at") != step:
        return
    if script.get("unless"):
        if os.path.exists(script["unless"]):
            return
        write_whole(script["unless"], "")
    kind = script["kind"]
    if script.get("says"):
        os.write(1, (script["says"] + "\n").encode("utf-8"))
    if kind == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "burn":
        while True:
            hashlib.sha256(bytes(1000)).digest()
    if kind == "deadlock":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    if kind == "flood":
        flood(script["bytes"])
        return
    if kind == "exit":
        os._exit(3)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "deaf":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if kind in ("hang", "deaf"):
        time.sleep(600)
    if kind == "lie":
        events.write("run_stop", status="success")
        os._exit(0)
    if kind == "garbage":
        with open(events_path(), "ab") as stream:
            stream.write(b'\xff\x00 not json\n{"event": "step"}\n[1, 2]\n')
            stream.write(b"[" * script.get("bytes", 0) + b"\n")
        return
    if kind == "other_protocol":
        with open(events_path(), "ab") as stream:
            stream.write(b'{"event": "step", "time_s": 1, "unix_s": 1, "protocol": 99}\n')
        time.sleep(600)
    raise worker.WorkerError("scripted " + kind, kind="exception" if kind == "error" else kind)


def flood(count: int) -> None:
    """Print so many bytes."""
    line = b"flood " * 170 + b"\n"
    for _ in range(count // len(line)):
        os.write(1, line)
    os.write(1, b"the last line\n")


def events_path() -> str:
    """The event file of the running job."""
    return str(worker.read_job()["paths"]["events"])


if __name__ == "__main__":
    sys.exit(worker.run(main))
