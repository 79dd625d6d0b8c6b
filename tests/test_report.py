"""`zoo-bench report`, as somebody looks at it: in a real browser, from disk."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Zoo
from nights import add, commit, night, without_runs
from playwright.sync_api import Browser, Page, expect, sync_playwright

from zoo_bench.datasets import shapes
from zoo_bench.load import load_matrix
from zoo_bench.measurements import Measurements
from zoo_bench.report.charts import front
from zoo_bench.report.pictures import best_and_worst
from zoo_bench.report.series import MOST_POINTS, thinned

MASK, RETINANET = "fake/mask-rcnn_r50_fpn_1x_shapes", "fake/retinanet_r50_fpn_1x_shapes"
HOSTILE = "<script>window.harmed = true</script>|*x*"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Chromium asks its maker for news at every start, which has nothing to do with the page.
ALONE = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = "no Chromium on the PATH: tools/install_browser.sh installs it"
        if os.environ.get("ZOO_BENCH_BROWSER") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=ALONE)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def zoo(finished: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A zoo of twenty nights, the last of which is slower, on a machine with a hostile name."""
    zoo = without_runs(finished, tmp_path_factory.mktemp("reported"))
    shutil.copytree(finished.root / "results" / "runs", zoo.root / "results" / "runs")
    noise = 1 + 0.005 * np.random.default_rng(0).standard_normal((21, len(finished.records)))
    for number in range(21):
        for record, factor in zip(finished.records, noise[number], strict=True):
            slower = factor * (1.2 if number == 20 and record.cell_id == MASK else 1.0)
            machine = {**record.machine, "name": HOSTILE}
            software = {**record.software, "python": "3.99" if number == 20 else "3.11", "odd": HOSTILE}
            told = night(record, number, slower=slower, machine=machine, software=software)
            add(zoo, told.model_copy(update={"measurements": with_classes(told.measurements)}))
        if not number:
            assert zoo.call("accept", "--why", "the first night").returncode == 0
    return zoo


def with_classes(measured: Measurements) -> Measurements:
    """The same with the AP of two classes, one of which has a hostile name."""
    scores = measured.scores
    assert scores is not None
    assert scores.box is not None
    box = dataclasses.replace(scores.box, per_class={"circle": 0.5, HOSTILE: 0.25})
    return measured.model_copy(update={"scores": dataclasses.replace(scores, box=box)})


@pytest.fixture(scope="module")
def site(zoo: Zoo) -> Path:
    folder = zoo.root / "site"
    done = zoo.call("report", "-o", str(folder))
    assert done.returncode == 0, done.stderr
    assert "5 of 5 pages written" in done.stderr
    return folder


class Visit:
    """A page in a tab that has no network; what it asked for, and what it complained of."""

    def __init__(self, page: Page, site: Path) -> None:
        self.page, self.site = page, site
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, path: str) -> Page:
        self.page.goto((self.site / path).as_uri())
        return self.page


@pytest.fixture
def visit(browser: Browser, site: Path) -> Iterator[Visit]:
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    visit = Visit(context.new_page(), site)
    yield visit
    context.close()
    assert [url for url in visit.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert visit.complaints == []


def names(page: Page) -> list[str]:
    return page.locator("#zoo tbody tr:visible th a").all_inner_texts()


def test_the_table_is_sorted_by_any_column_with_the_keyboard_too(visit: Visit) -> None:
    page = visit.open("index.html")
    ap = page.get_by_role("columnheader", name="box AP")
    button = ap.get_by_role("button")
    button.click()
    assert ap.get_attribute("aria-sort") == "ascending"
    values = [float(text) for text in page.locator('#zoo td[data-column="s_per_iter"]:visible').all_inner_texts()]
    time_ = page.get_by_role("columnheader", name="Train time")
    time_.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert ap.get_attribute("aria-sort") == "none"
    shown = [float(text) for text in page.locator('#zoo td[data-column="s_per_iter"]:visible').all_inner_texts()]
    assert shown == sorted(values)
    page.keyboard.press("Enter")
    shown = [float(text) for text in page.locator('#zoo td[data-column="s_per_iter"]:visible').all_inner_texts()]
    assert shown == sorted(values, reverse=True)
    mask = page.get_by_role("columnheader", name="mask AP")
    for _ in range(2):
        mask.get_by_role("button").click()
        assert names(page)[-1] == RETINANET, "what has no figure comes last, either way"


def test_the_table_is_filtered_and_searched(visit: Visit) -> None:
    page = visit.open("index.html")
    expect(page.locator("#count")).to_have_text("2 of 2 cells")
    page.get_by_label("detector").select_option("RetinaNet")
    assert names(page) == [RETINANET]
    expect(page.locator("#count")).to_have_text("1 of 2 cells")
    page.get_by_label("detector").select_option("")
    page.get_by_label("Search").fill("mask r50")
    assert names(page) == [MASK]


def test_units_are_switched(visit: Visit) -> None:
    page = visit.open("index.html")
    expect(page.get_by_role("columnheader", name="Host mem (GB)")).to_be_visible()
    cell = page.locator('#zoo tr:has-text("mask-rcnn") td[data-column="s_per_iter"] a').first
    seconds = float(cell.inner_text())
    page.get_by_label("Training").select_option(label="ms/iter")
    assert float(cell.inner_text()) == pytest.approx(1000 * seconds, abs=1)
    expect(page.get_by_role("columnheader", name="Train time (ms/iter)")).to_be_visible()
    page.locator("[data-unit=ap]").select_option(label="fraction")
    assert page.locator('#zoo tr:has-text("mask-rcnn") td[data-column="box_ap"] a').first.inner_text() == "0.375"


def test_a_number_leads_to_its_run(visit: Visit) -> None:
    page = visit.open("index.html")
    link = page.locator('#zoo tr:has-text("mask-rcnn") td[data-column="fps"] a').first
    assert link.get_attribute("title")
    link.click()
    page.wait_for_url("**/mask-rcnn_r50_fpn_1x_shapes/index.html#run-*")
    target = page.locator("tr:target th")
    assert target.inner_text() == page.url.partition("#run-")[2]


def test_what_was_chosen_and_what_is_shown_agree_after_going_back(visit: Visit) -> None:
    page = visit.open("index.html")
    page.get_by_label("Training").select_option(label="ms/iter")
    page.get_by_label("Search").fill("mask")
    page.locator("#zoo tbody tr:visible th a").first.click()
    page.wait_for_url("**/cells/**")
    page.go_back()
    page.wait_for_selector("main[data-ready]")
    unit = page.get_by_label("Training").locator("option:checked").inner_text()
    expect(page.get_by_role("columnheader", name=f"Train time ({unit})")).to_be_visible()
    assert len(names(page)) == (1 if page.get_by_label("Search").input_value() else 2)


def test_what_others_published_is_shown_when_asked_and_visibly_not_ours(visit: Visit) -> None:
    page = visit.open("index.html")
    theirs = page.locator("#zoo tr.published")
    assert theirs.count() > 3
    expect(theirs.first).to_be_hidden()
    drawn = page.locator("#box-ap-fps .legendtext")
    assert "published by others" not in drawn.all_text_contents()
    page.get_by_label("published by others").check()
    expect(theirs.first).to_be_visible()
    assert "not ours" in theirs.first.inner_text()
    assert theirs.first.evaluate("row => getComputedStyle(row.cells[0]).fontStyle") == "italic"
    assert "published by others" in drawn.all_text_contents()
    expect(page.locator("#count")).to_have_text("2 of 2 cells")


def test_a_cells_page_draws_its_run_and_its_nights(visit: Visit) -> None:
    page = visit.open(f"cells/{MASK}/index.html")
    for name in (
        "history-s_per_iter",
        "history-memory",
        "classes",
        "loss",
        "lr",
        "times",
        "distribution",
        "host-memory",
    ):
        expect(page.locator(f"#{name} .main-svg").first).to_be_visible()
    said = page.locator("main").inner_text()
    assert f"zoo-bench run --profile quick --select {MASK}" in said
    assert "SHA-256" in said
    accepted = page.evaluate("document.getElementById('history-s_per_iter').layout.shapes[0].y0")
    assert accepted == pytest.approx(0.02, rel=0.03)
    assert HOSTILE in page.locator("#classes").inner_text()


def test_a_cells_page_draws_what_was_detected(browser: Browser, zoo: Zoo, tmp_path: Path) -> None:
    """The fake worker writes no detections: here a run has some, and the dataset is there."""
    seen = Zoo(tmp_path)
    seen.change(zoo.matrix)
    assert seen.call("data", "shapes").returncode == 0
    annotations = next((tmp_path / ".zoo-bench" / "data").glob("*/annotations/instances_val.json"))
    content = json.loads(annotations.read_text())
    right = [one for one in content["annotations"] if one["image_id"] != content["images"][0]["id"]]
    found = [{name: one[name] for name in ("image_id", "category_id", "bbox")} | {"score": 0.9} for one in right]
    (tmp_path / "detections.json").write_text(json.dumps(found))
    record = next(record for record in zoo.records if record.cell_id == RETINANET)
    digest = shapes.fingerprint(shapes.ShapesSettings(**seen_settings(seen)))
    inputs = record.inputs.model_copy(update={"dataset_sha256": digest})
    add(seen, record.model_copy(update={"inputs": inputs, "files": {**record.files, "detections": "detections.json"}}))
    done = seen.call("report", "-o", str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    context = browser.new_context(offline=True)
    visit = Visit(context.new_page(), tmp_path / "site")
    page = visit.open(f"cells/{RETINANET}/index.html")
    expect(page.locator("#box-curve .main-svg").first).to_be_visible()
    captions = page.locator("figure:has(img) figcaption").all_inner_texts()
    assert len(captions) == 4
    assert "F1 1.00" in captions[0]
    assert page.locator("figure img").evaluate_all("images => images.every(one => one.naturalWidth > 600)")
    assert visit.complaints == []
    context.close()


def seen_settings(zoo: Zoo) -> dict[str, int]:
    declared = load_matrix(zoo.root / "matrix.yaml").datasets["shapes"]
    return declared.model_dump(exclude={"kind", "label"})


def test_what_is_red_is_named_with_its_commit_and_how_to_see_it_again(visit: Visit) -> None:
    page = visit.open("regressions.html")
    section = page.locator("section.regressed")
    assert section.count() == 1
    said = section.inner_text()
    assert "s/iter: regressed" in said
    assert f"since commit {commit(20)[:12]}" in said
    assert "3.11 -> 3.99" in said
    assert "zoo-bench run --profile quick" in said
    section.get_by_role("link").first.click()
    page.wait_for_url("**/mask-rcnn_r50_fpn_1x_shapes/index.html")


def test_two_runs_are_put_side_by_side(visit: Visit) -> None:
    page = visit.open("compare.html")
    options = page.locator("#side-a option").all_inner_texts()
    assert len(options) == 42
    masks = [place for place, text in enumerate(options) if MASK in text]
    page.locator("#side-a").select_option(index=masks[1])
    page.locator("#side-b").select_option(index=masks[0])
    row = page.locator("#compared tbody tr", has_text="Train time")
    change = float(row.locator("td").nth(2).inner_text().removesuffix(" %"))
    assert change == pytest.approx(20, abs=3)
    assert "3.99" in page.locator("#surroundings").inner_text()


def test_what_records_hold_is_shown_as_text(visit: Visit) -> None:
    for path in ("index.html", "compare.html", "regressions.html", f"cells/{MASK}/index.html"):
        page = visit.open(path)
        assert page.evaluate("window.harmed") is None
        if path != "regressions.html":
            assert HOSTILE in page.locator("main").inner_text(), path


@pytest.mark.parametrize("path", ["index.html", f"cells/{MASK}/index.html", "compare.html", "regressions.html"])
def test_pages_fit_a_phone(browser: Browser, site: Path, path: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = Visit(context.new_page(), site).open(path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_pages_are_dark_where_readers_want_that(browser: Browser, site: Path) -> None:
    found = []
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
        page = Visit(context.new_page(), site).open("index.html")
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        text = page.locator("#box-ap-fps .xtick text").first.evaluate("text => getComputedStyle(text).fill")
        found.append((back, text))
        context.close()
    (light, dark_text), (dark, light_text) = found
    assert light != dark
    assert dark_text != light_text


def test_only_what_has_changed_is_written_again(zoo: Zoo, site: Path) -> None:
    def written() -> str:
        return zoo.call("report", "-o", str(site)).stderr.rpartition("index.html: ")[2].split(" pages")[0]

    assert written() == "0 of 5"
    last = [record for record in zoo.records if record.cell_id == RETINANET][-1]
    later = {"run_id": "20261201T000000.000Z-0000", "started_unix_s": last.started_unix_s + 60}
    add(zoo, last.model_copy(update=later))
    assert written() == "3 of 5", "its cell's page, its row's numbers lead to another run, and it can be compared"
    zoo.change({"check": {"least_change": {"s_per_iter": 0.9}}})
    assert written() == "3 of 5", "both cells' histories, and nothing is red any more"
    zoo.change({"check": {"least_change": {"s_per_iter": 0.015}}, "document": {"title": "Another zoo"}})
    assert written() == "4 of 5"
    damaged = zoo.root / "results" / MASK / "29991231T000000.000Z-0000.json"
    damaged.write_text("{")
    assert written() == "1 of 5", "what cannot be read is red"
    damaged.unlink()
    (zoo.root / "results" / last.cell_id / f"{later['run_id']}.json").unlink()


def test_an_interrupted_report_is_gone_on_with(zoo: Zoo, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    zoo.call("report", "-o", str(folder), "--select", MASK)
    (folder / ".zoo-bench-report.json").write_text("{}")
    assert zoo.call("report", "-o", str(folder)).returncode == 0
    assert (folder / "cells" / RETINANET / "index.html").is_file()
    notes = folder / "cells" / MASK / "notes.txt"
    notes.write_text("mine too")
    other = tmp_path / "keep" / "index.html"
    other.parent.mkdir()
    other.write_text("mine")
    (folder / ".zoo-bench-report.json").write_text(
        json.dumps({"../keep/index.html": "x", f"cells/{MASK}/index.html": "x"})
    )
    assert zoo.call("report", "-o", str(folder), "--select", RETINANET).returncode == 0
    assert notes.read_text() == "mine too"
    assert other.read_text() == "mine", "what is listed and is no page of a cell is not taken away"
    assert not (folder / "cells" / MASK / "index.html").exists()


def test_a_folder_with_something_else_is_left_alone(zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = zoo.call("report", "-o", str(tmp_path))
    assert done.returncode == 2
    assert "holds something else" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_zoo_has_a_site_too(finished: Zoo, tmp_path: Path) -> None:
    zoo = without_runs(finished, tmp_path)
    done = zoo.call("report", "-o", str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    assert "never run" in (tmp_path / "site" / "index.html").read_text()


def test_the_front_is_of_those_that_nothing_is_better_than() -> None:
    places = [(10.0, 30.0), (20.0, 25.0), (15.0, 20.0), (5.0, 30.0), (20.0, 24.0)]
    assert front(places, smaller_x=False) == [(10.0, 30.0), (20.0, 25.0)]
    assert front(places, smaller_x=True) == [(5.0, 30.0)]


def test_a_long_series_keeps_its_peaks() -> None:
    x = np.arange(100_000, dtype=np.float64)
    y = np.random.default_rng(0).standard_normal(len(x))
    spikes = np.arange(300) * 331 + 77
    y[spikes] = 99.0
    thin_x, thin_y = thinned(x, y)
    assert len(thin_x) <= MOST_POINTS
    for spike in spikes:
        assert abs(thin_x[thin_y == 99.0] - spike).min() <= 2 * len(x) / MOST_POINTS, "of each stretch the greatest"


def test_the_best_and_the_worst_images_are_drawn(tmp_path: Path) -> None:
    shapes.generate(tmp_path, shapes.ShapesSettings(train_images=1, val_images=6, crowd_permille=0))
    annotations = tmp_path / "annotations" / "instances_val.json"
    content = json.loads(annotations.read_text())
    right = [one for one in content["annotations"] if one["image_id"] != content["images"][0]["id"]]
    found = [{name: one[name] for name in ("image_id", "category_id", "bbox")} | {"score": 0.9} for one in right]
    (tmp_path / "detections.json").write_text(json.dumps(found))
    drawn = best_and_worst(annotations, tmp_path / "detections.json", tmp_path / "val", None)
    assert [one.f1 for one in drawn][:2] == [1.0, 1.0]
    assert drawn[-1].f1 == 0.0
    assert drawn[-1].file == content["images"][0]["file_name"]
    assert all(dataclasses.asdict(one)["picture"].width > 600 for one in drawn)
