// The report's behaviour: charts in the page's colours, a table that is sorted, filtered and measured in other units,
// and two runs side by side. Everything it shows is in the page; nothing is fetched.
"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");

// ---- charts ----

function colours() {
  const style = getComputedStyle(document.documentElement);
  return { text: style.getPropertyValue("--text").trim(), grid: style.getPropertyValue("--line").trim() };
}

function themed(layout) {
  const { text, grid } = colours();
  const axis = (given) => ({ gridcolor: grid, zerolinecolor: grid, automargin: true, ...given });
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: text, family: "system-ui, sans-serif", size: 13 },
    margin: { t: 16, r: 16, b: 48, l: 56 },
    height: 360,
    legend: { orientation: "h", y: -0.25 },
    hovermode: "closest",
    ...layout,
    xaxis: axis(layout.xaxis),
    yaxis: axis(layout.yaxis),
  };
}

const reduced = matchMedia("(prefers-reduced-motion: reduce)").matches;
const settings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["toImage"] };

function draw(chart) {
  const place = document.getElementById(chart.id);
  const layout = themed(chart.layout);
  if (reduced) layout.transition = { duration: 0 };
  Plotly.react(place, chart.traces, layout, settings);
  if (place.dataset.wired) return;
  place.dataset.wired = "yes";
  place.on("plotly_click", (event) => {
    const to = event.points[0].customdata;
    if (to) location.href = to;
  });
  if (chart.layout.meta && chart.layout.meta.time) place.on("plotly_relayout", (change) => follow(chart, change));
}

// Charts over one time axis are looked at together.
let following = false;
function follow(chart, change) {
  if (following) return;
  const range = "xaxis.range[0]" in change ? [change["xaxis.range[0]"], change["xaxis.range[1]"]] : null;
  if (!range && !change["xaxis.autorange"]) return;
  following = true;
  const others = page.charts.filter((one) => one !== chart && one.layout.meta && one.layout.meta.time);
  const wanted = range ? { "xaxis.range": range } : { "xaxis.autorange": true };
  Promise.all(others.map((one) => Plotly.relayout(one.id, wanted))).finally(() => { following = false; });
}

function drawAll() {
  page.charts.forEach(draw);
}

drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

// ---- units ----

const GIB = 2 ** 30;
const UNITS = {
  memory: [
    ["GB (2^30 bytes)", (value) => (value / GIB).toFixed(1), "GB"],
    ["GB (10^9 bytes)", (value) => (value / 1e9).toFixed(1), "10^9 bytes"],
    ["MiB", (value) => (value / 2 ** 20).toFixed(0), "MiB"],
  ],
  s_per_iter: [
    ["s/iter", (value) => value.toFixed(3), "s/iter"],
    ["ms/iter", (value) => (value * 1000).toFixed(1), "ms/iter"],
    ["images/s", (value, batch) => (batch / value).toFixed(1), "images/s"],
  ],
  ap: [
    ["points", (value) => (value * 100).toFixed(1)],
    ["fraction", (value) => value.toFixed(3)],
  ],
};

function measured(select) {
  const name = select.dataset.unit;
  const [, write, unit] = UNITS[name][select.value];
  const columns = name === "ap" ? ["box_ap", "mask_ap"] : [name];
  for (const column of columns) {
    for (const cell of document.querySelectorAll(`#zoo td[data-column="${column}"][data-value]`)) {
      const batch = Number(cell.closest("tr").dataset.batch);
      const text = write(Number(cell.dataset.value), batch);
      cell.querySelector("a").textContent = text;
      cell.dataset.sort = text;
    }
    const button = document.querySelector(`#zoo th[data-column="${column}"] button`);
    if (button && unit) button.textContent = button.textContent.replace(/\(.*\)$/, `(${unit})`);
  }
}

// ---- the table ----

const table = document.getElementById("zoo");

function key(row, place) {
  const cell = row.cells[place];
  if (cell.dataset.value !== undefined) return Number(cell.dataset.sort ?? cell.dataset.value);
  return cell.classList.contains("number") ? null : cell.textContent.trim().toLowerCase() || null;
}

function sort(head, descending = head.getAttribute("aria-sort") === "ascending") {
  for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows];
  const sign = descending ? -1 : 1;
  rows.sort((a, b) => {
    const [x, y] = [key(a, head.cellIndex), key(b, head.cellIndex)];
    if (x === null || y === null) return (x === null) - (y === null); // what is missing comes last, either way
    return sign * (typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true }));
  });
  table.tBodies[0].append(...rows);
}

function filter() {
  const words = document.getElementById("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = [...document.querySelectorAll("select[data-filter]")].filter((select) => select.value);
  const published = document.getElementById("published").checked;
  let count = 0;
  for (const row of table.tBodies[0].rows) {
    const theirs = row.classList.contains("published");
    const traits = JSON.parse(row.dataset.traits);
    // What others have published has another backend, machine and status: it stays beside ours.
    const own = ["detector", "backbone", "schedule", "precision"];
    const fits = wanted.every((select) =>
      (theirs && !own.includes(select.dataset.filter)) || traits[select.dataset.filter] === select.value);
    const text = (row.textContent + Object.values(traits).join(" ")).toLowerCase();
    row.hidden = (theirs && !published) || !fits || !words.every((word) => text.includes(word));
    count += !row.hidden && !theirs;
  }
  const ours = table.querySelectorAll("tbody tr:not(.published)").length;
  document.getElementById("count").textContent = `${count} of ${ours} cells`;
}

function showPublished(event) {
  for (const chart of page.charts) {
    const place = chart.traces.findIndex((trace) => trace.meta === "published");
    if (place < 0) continue;
    chart.traces[place].visible = event.target.checked;
    draw(chart);
  }
  filter();
}

if (table) {
  for (const select of document.querySelectorAll("select[data-unit]")) {
    UNITS[select.dataset.unit].forEach(([name], place) => select.add(new Option(name, place)));
    select.addEventListener("change", () => {
      measured(select);
      const head = table.querySelector("th[aria-sort$=ending]");
      if (head) sort(head, head.getAttribute("aria-sort") === "descending");
    });
    measured(select);
  }
  for (const head of table.tHead.rows[0].cells) head.querySelector("button").addEventListener("click", () => sort(head));
  document.getElementById("search").addEventListener("input", filter);
  for (const select of document.querySelectorAll("select[data-filter]")) select.addEventListener("change", filter);
  const published = document.getElementById("published");
  published.addEventListener("change", showPublished);
  showPublished({ target: published });
}

// ---- two runs side by side ----

const compared = document.getElementById("compared");

function line(texts, heading = 0) {
  const row = document.createElement("tr");
  texts.forEach((text, place) => {
    const cell = document.createElement(place === heading ? "th" : "td");
    if (place === heading) cell.scope = "row";
    cell.textContent = text;
    row.append(cell);
  });
  return row;
}

function write(column, value) {
  const unit = UNITS[column.endsWith("_ap") ? "ap" : column];
  return unit ? unit[0][1](value) : value.toFixed(1);
}

function change(column, a, b) {
  return column.endsWith("_ap") ? `${b - a >= 0 ? "+" : ""}${((b - a) * 100).toFixed(1)} points`
    : `${b >= a ? "+" : ""}${((b / a - 1) * 100).toFixed(1)} %`;
}

function judged(a, b, noisy) {
  if (noisy || a[1] === null || b[1] === null) return "";
  const noise = Math.hypot((a[2] - a[1]) / 2, (b[2] - b[1]) / 2);
  return Math.abs(b[0] - a[0]) <= noise ? "within noise" : "differs";
}

function withInterval(column, [value, low, high]) {
  return low === null ? write(column, value) : `${write(column, value)} (${write(column, low)} to ${write(column, high)})`;
}

function compare() {
  const [a, b] = ["side-a", "side-b"].map((id) => page.sides[document.getElementById(id).value]);
  const heads = JSON.parse(compared.dataset.heads);
  const rows = [];
  for (const [column, head] of Object.entries(heads)) {
    const [x, y] = [a.figures[column], b.figures[column]];
    if (!x && !y) continue;
    rows.push(line([head, x ? withInterval(column, x) : "", y ? withInterval(column, y) : "",
      ...(x && y && (x[0] || column.endsWith("_ap")) && (column !== "memory" || a.host === b.host)
        ? [change(column, x[0], y[0]), judged(x, y, a.noisy || b.noisy)] : ["", x && y ? "not of one kind" : ""])]));
  }
  compared.tBodies[0].replaceChildren(...rows);
  const names = [...new Set([...Object.keys(a.traits), ...Object.keys(b.traits)])];
  const unlike = names.filter((name) => a.traits[name] !== b.traits[name]);
  const lines = unlike.map((name) => line([name, a.traits[name] || "none", b.traits[name] || "none"]));
  document.querySelector("#surroundings tbody").replaceChildren(
    ...(lines.length ? lines : [line(["nothing that the records hold", "", ""])]));
}

if (compared) {
  ["side-a", "side-b"].forEach((id, place) => {
    const select = document.getElementById(id);
    page.sides.forEach((side, number) => select.add(new Option(side.label, number)));
    select.value = place ? 0 : Math.min(1, page.sides.length - 1); // the newest run, against the one before it
    select.addEventListener("change", compare);
  });
  compare();
}

main.dataset.ready = "yes";
