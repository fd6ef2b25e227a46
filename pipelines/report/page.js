"use strict";

const NAMES = { dataset: "Data set", target: "Class", class: "Class", case: "Case",
  loss: "Loss", region: "Region", run: "Run", table: "Table" };

// Selects for some fields of items; each offers what the ones before it leave.
// `show` is called with the one item that is chosen.
function choose(place, fields, items, show, first) {
  const selects = fields.map((field) => {
    const label = document.createElement("label"), select = document.createElement("select");
    label.append(NAMES[field], select);
    select.dataset.field = field;
    select.addEventListener("change", () => update());
    place.append(label);
    return select;
  });
  function update(wanted) {
    let left = items;
    selects.forEach((select, at) => {
      const field = fields[at], values = [...new Set(left.map((item) => item[field]))];
      const kept = wanted ? wanted[field] : select.value;
      select.replaceChildren(...values.map((value) => new Option(value, value)));
      select.value = values.includes(kept) ? kept : values[0];
      select.parentElement.hidden = values.length < 2 && at > 0;
      left = left.filter((item) => item[field] === select.value);
    });
    show(left[0]);
  }
  if (items.length) update(first || items[0]);
}

for (const chooser of document.querySelectorAll("[data-chooser]")) {
  const fields = chooser.dataset.chooser.split(" "), place = document.createElement("div");
  const panels = [...chooser.querySelectorAll("[data-panel]")];
  place.className = "choices";
  chooser.prepend(place);
  choose(place, fields, panels.map((panel) => ({ ...panel.dataset, panel })), (item) => {
    for (const panel of panels) panel.hidden = panel !== item.panel;
  });
}

// Numbers by value, also with an interval behind them; text by the alphabet; empty last.
function sortBy(table, column, sign) {
  const value = (row) => row.cells[column].textContent, body = table.tBodies[0];
  const order = (a, b) => {
    const x = value(a), y = value(b), m = parseFloat(x), n = parseFloat(y);
    if (!x || !y) return !x - !y;
    return sign * (isNaN(m) || isNaN(n) ? x.localeCompare(y) : m - n);
  };
  body.append(...[...body.rows].sort(order));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      sortBy(table, column, up ? 1 : -1);
    });
  });
}

// Bytes as the page keeps them: base64 of zlib. They are unpacked once.
const unpacked = new Map();
async function bytes(text) {
  if (!unpacked.has(text)) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    unpacked.set(text, new Uint8Array(await new Response(stream).arrayBuffer()));
  }
  return unpacked.get(text);
}

const place = document.querySelector("[data-explorer]");
const part = (name) => place.querySelector(`[data-${name}]`);
const data = JSON.parse(document.getElementById("explorer-data").textContent);
const rgb = (name) => data.key[name].match(/\w\w/g).map((digits) => parseInt(digits, 16));
const COLOURS = [[0, 0, 0, 0], ...["false positive", "false negative", "true positive"]
  .map((name) => [...rgb(name), 255])];
let entry = null, drawing = 0;

// What a pixel is painted with: of errors by truth and prediction, else by the map.
function painter(view, level) {
  const least = data.subdivisions * level, last = data.heat.length - 1;
  if (view === "image") return () => COLOURS[0];
  if (view === "errors") return (code, truth) => COLOURS[2 * truth + (code >= least)];
  const bits = (q) => (q > 0 ? -q * Math.log2(q) : 0);
  const entropy = (p) => Math.round(last * (bits(p) + bits(1 - p)));
  const place = (code) => (view === "entropy" ? entropy((code + 0.5) / (last + 1)) : code);
  const table = data.heat.map((_, code) => [...data.heat[place(code)], 255]);
  return (code) => table[code];
}

async function draw(level) {
  const own = ++drawing, scene = data.scenes[entry.scene], canvas = part("canvas");
  part("figure").hidden = !scene;
  if (!scene) return;
  const [slices, rows, columns] = scene.shape, view = part("view").value;
  const slice = Number(part("slice").value);
  const [codes, labels] = await Promise.all([bytes(entry.p), bytes(scene.labels)]);
  if (own !== drawing) return; // Another choice was made meanwhile.
  const paint = painter(view, level), image = new ImageData(columns, rows);
  for (let i = 0, at = slice * rows * columns; i < rows * columns; i++, at++)
    image.data.set(paint(codes[at], labels[at] === entry.index ? 1 : 0), 4 * i);
  Object.assign(canvas, { width: columns, height: rows });
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${view} of ${entry.loss} at threshold ${part("at").value}`);
  part("stack").dataset.shows = view;
  part("stack").style.aspectRatio = `${columns} / ${rows * scene.aspect}`;
  part("image").src = scene.images[slice];
  part("slices").hidden = slices < 2;
  part("slice-at").value = scene.slices[slice] ?? "";
  for (const key of place.querySelectorAll("[data-key]"))
    key.hidden = view === "image" || (key.dataset.key === "errors") !== (view === "errors");
  place.dataset.drawn = "yes";
}

function number(value) {
  return value === null || value === undefined ? "undefined" : value.toFixed(3);
}

function update() {
  const at = Math.round(part("threshold").value * 20) - 1, shown = data.thresholds[at].toFixed(2);
  part("at").value = shown;
  part("threshold").setAttribute("aria-valuetext", `threshold ${shown}`);
  for (const cell of place.querySelectorAll("[data-of]")) {
    const of = entry[cell.dataset.of], known = of !== null && typeof of === "object";
    cell.parentElement.hidden = of === undefined;
    let text = number(known ? of.mean[at] : of);
    if (known && of.ci_low && of.ci_low[at] !== null)
      text += ` [${number(of.ci_low[at])}, ${number(of.ci_high[at])}]`;
    cell.textContent = text;
  }
  const step = entry.scene ? data.scenes[entry.scene].step : 1;
  part("note").textContent = entry.note + (step > 1 ? ` Drawn: every ${step}. row and column.` : "");
  delete place.dataset.drawn; // until the picture is as chosen
  draw(at + 1);
}

choose(part("choices"), ["dataset", "target", "case", "loss"], data.entries, (item) => {
  const scene = data.scenes[item.scene], before = entry && entry.scene;
  entry = item;
  if (scene && item.scene !== before)
    Object.assign(part("slice"), { max: scene.shape[0] - 1, value: scene.first });
  update();
}, data.entries.find((item) => item.scene));
for (const name of ["threshold", "view", "slice"]) part(name).addEventListener("input", update);
