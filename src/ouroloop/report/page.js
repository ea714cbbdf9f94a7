"use strict";
// Hands the data and the definitions in #data to Vega, and lets the reader ask the figures and leaf through the texts.
// What a model wrote, a name or a tag is only ever put into text nodes.
(async () => {
const packed = Uint8Array.from(atob(document.getElementById("data").textContent), letter => letter.charCodeAt(0));
const DATA = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
const records = Object.fromEntries(Object.entries(DATA.tables).map(([name, { columns, rows }]) => [name,
  rows.map((row, id) => Object.fromEntries([...row.map((value, i) => [columns[i], value]), ["id", id]]))]));

function by(rows, key) {
  const groups = new Map();
  for (const row of rows) groups.has(row[key]) ? groups.get(row[key]).push(row) : groups.set(row[key], [row]);
  return groups;
}
const WRITTEN = DATA.tables.expressions ? "expressions" : "texts"; // as the testbed calls them
const whole = number => number.toLocaleString("en");
const isNumber = value => typeof value === "number";
function percent(share) {
  const value = 100 * share;
  return `${value === 0 || value >= 10 ? value.toFixed(1) : value >= 0.1 ? value.toFixed(2) : value.toPrecision(1)}%`;
}
function node(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG.has(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(key, value === true && key !== "aria-hidden" ? "" : String(value));
  }
  made.append(...children.filter(child => child !== undefined));
  return made;
}
const SVG = new Set(["svg", "path"]);

// ---- a figure: drawn by Vega, read off with pointer, touch or keys ----------------------------------------------

/** Draws `spec` into `box` and lets its values be read: `marks(view)` are {id, x, y, title, lines}, x and y in pixels. */
async function plot(box, spec, name, label, marks, params = {}) {
  const canvas = node("div", { "aria-hidden": true }), tip = node("div", { class: "tip", role: "status", hidden: true });
  const chart = node("div", { class: "chart", tabindex: 0, role: "application", "aria-label": `${label}. Arrow keys read the values.` }, canvas, tip);
  box.append(chart);
  let view, points = [], at = -1;
  async function draw(wanted = spec) {
    const narrow = chart.clientWidth < 560;
    const given = wanted.params.map(one => one.name in params && "value" in one ? { ...one, value: params[one.name] } : one);
    const fitted = { ...wanted, params: given, datasets: { [name]: records[name] }, ...(narrow && wanted.height > 260 ? { height: 260 } : {}) };
    if (view) view.finalize();
    canvas.replaceChildren();
    const options = { mode: "vega-lite", ast: true, actions: false, renderer: "svg", tooltip: false, defaultStyle: false };
    ({ view } = await vegaEmbed(canvas, fitted, options));
    await set({ ...params, at: null });
  }
  async function set(values) {
    Object.assign(params, values);
    for (const [key, value] of Object.entries(params)) view.signal(key, value);
    await view.runAsync();
    const [left, top] = view.origin();
    points = marks(view).map(point => ({ ...point, x: point.x + left, y: point.y + top })).filter(point => isFinite(point.x + point.y));
  }
  async function show(i) {
    at = i;
    const point = points[i];
    tip.hidden = !point;
    view.signal("at", point ? point.id : null);
    await view.runAsync();
    if (!point) return;
    tip.replaceChildren(node("b", {}, point.title), ...point.lines.slice(0, 12).map(([color, key, value]) =>
      node("div", {}, node("i", { style: `background:${color}` }), node("span", {}, key), node("span", {}, value))));
    if (point.lines.length > 12) tip.append(node("small", {}, `and ${point.lines.length - 12} more`));
    const isRight = point.x + 14 + tip.offsetWidth > chart.clientWidth;
    tip.style.left = `${Math.max(0, isRight ? point.x - 14 - tip.offsetWidth : point.x + 14)}px`;
    tip.style.top = `${Math.max(0, point.y)}px`;
  }
  function follow(event) {
    const area = canvas.getBoundingClientRect(), [px, py] = [event.clientX - area.left, event.clientY - area.top];
    let best = -1, least = Infinity;
    points.forEach((point, i) => {
      const distance = Math.hypot(point.x - px, point.isColumn ? 0 : point.y - py);
      if (distance < least) [best, least] = [i, distance];
    });
    if (best !== at) show(best);
  }
  chart.addEventListener("pointermove", follow);
  chart.addEventListener("pointerdown", follow);
  for (const left of ["pointerleave", "blur"]) chart.addEventListener(left, () => show(-1));
  chart.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (event.key === "Escape") show(-1);
    if (!step || !points.length) return;
    event.preventDefault();
    show(Math.min(Math.max(at + step, 0), points.length - 1));
  });
  await draw();
  let width = chart.clientWidth;
  new ResizeObserver(async () => {
    if (chart.clientWidth === width) return;
    width = chart.clientWidth;
    view.resize();
    window.dispatchEvent(new Event("resize"));
    await set({});
  }).observe(chart);
  return { draw, set };
}

const color = i => DATA.looks[i].color, INK = "var(--ink)";
/** The line and the mark of the i-th of several names; without `i`, the paper's dotted line. */
function key(i, name) {
  const look = DATA.looks[i];
  const style = look ? { stroke: look.color, "stroke-dasharray": look.dash.join(" ") }
    : { stroke: INK, "stroke-dasharray": DATA.paper.dash.join(" "), "stroke-linecap": "round" };
  const line = node("path", { class: "line", d: "M1 6H29", ...style });
  const mark = look && node("path", { d: look.mark, transform: "translate(15 6) scale(3.6)", fill: look.color, stroke: "none" });
  return [node("svg", { viewBox: "0 0 30 12", "aria-hidden": true }, line, mark), name];
}
const PAPER = DATA.paper.name;
/** Buttons that show and hide; `chosen` gets the names that are hidden. */
function legend(names, hasPaper, chosen) {
  const hidden = new Set();
  const buttons = [...names, ...(hasPaper ? [PAPER] : [])].map((name, i) => node("button", {
    type: "button", "aria-pressed": "true",
    onclick: event => {
      if (!hidden.delete(name)) hidden.add(name);
      event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(name)));
      chosen(hidden);
    },
  }, ...key(i < names.length ? i : undefined, name)));
  return node("div", { class: "legend", role: "group", "aria-label": "Show or hide" }, ...buttons);
}
function scales(what, now, choose) {
  const buttons = ["linear", "log"].map(option => node("button", {
    type: "button", "aria-pressed": String(option === now),
    onclick: event => {
      for (const one of buttons) one.setAttribute("aria-pressed", String(one === event.currentTarget));
      choose(option);
    },
  }, option));
  return node("div", { class: "segments right", role: "group", "aria-label": `Scale of the axis of ${what}` }, ...buttons);
}

function dataBelow(box, name, files) {
  const { columns, rows, total } = DATA.tables[name], summary = node("summary", {}, "Data, also in ");
  files.forEach((file, i) => summary.append(i ? " and " : "", node("code", {}, file)));
  const details = node("details", {}, summary);
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector("table")) return;
    const shown = rows.slice(0, 1000).map(row => row.map(value => [value === null ? "" : value, isNumber(value)]));
    details.append(node("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Data of ${name}` }, table(columns, shown)));
    if (rows.length > 1000) details.append(node("p", { class: "about" }, `The first 1,000 of ${whole(rows.length)} rows.`));
  });
  if (rows.length < total) box.append(node("p", { class: "about" }, `${whole(rows.length)} of ${whole(total)} rows are on this page; all are in ${files[0]}.`));
  box.append(details);
}
/** A table of [value, whether it is a number, the cell if it is made already]. */
function table(columns, rows) {
  const style = isRight => ({ class: isRight ? "number" : undefined });
  const heading = (column, i) => node("th", { scope: "col", ...style(rows.length && rows[0][i][1]) }, column.replaceAll("_", " "));
  const cell = ([value, isRight, made]) => made || node("td", style(isRight), String(value));
  return node("table", {}, node("thead", {}, node("tr", {}, ...columns.map(heading))),
    node("tbody", {}, ...rows.map(row => node("tr", {}, ...row.map(cell)))));
}

/** Replaces what was drawn before by what `draw` makes of it; what was drawn stays where that fails. */
async function figure(name, draw) {
  const section = document.getElementById(name), old = section?.querySelector(".drawn");
  if (!old || !records[name].length) return;
  const box = node("div", { class: "live" });
  old.before(box);
  old.hidden = true;
  try {
    await draw(box, records[name]);
    old.remove();
  } catch (error) {
    box.remove();
    old.hidden = false;
    throw error;
  }
  dataBelow(section, name, name === WRITTEN ? [`${name}.csv`] : [`${name}.csv`, `${name}.png`]);
}
/** A small chart for each of `shown`, pairs of a name and its rows; `marksOf` makes the marks of one, `more` its parameters. */
function multiples(box, shown, spec, name, label, marksOf, titleOf = shown => shown[0], more = () => ({})) {
  const panels = node("div", { class: shown.length > 1 ? "multiples" : "" });
  box.append(panels);
  return Promise.all(shown.map(async one => {
    const panel = node("div", {}, node("b", { class: "name" }, titleOf(one)));
    panels.append(panel);
    return plot(panel, spec, name, `${label}, ${titleOf(one)}`, marksOf(one[1]), { chosen: one[0], ...more(one[1]) });
  }));
}
const controls = (...children) => node("div", { class: "controls" }, ...children);
const kept = row => percent(row.mean)
  + (isNumber(row.interval_low) ? ` (${percent(row.interval_low)} – ${percent(row.interval_high)}, n = ${row.seeds})` : "");
const at = (view, x, y) => ({ x: view.scale("x")(x), y: view.scale("y")(y) });

// ---- the figures -------------------------------------------------------------------------------------------------

await figure("retention", async (box, rows) => {
  const cells = [...by(rows, "cell").keys()], hasPaper = rows.some(row => isNumber(row.paper));
  let hidden = new Set(), chart;
  const lines = own => own.filter(row => !hidden.has(row.cell)).flatMap(row => {
    const ours = [row.mean, color(cells.indexOf(row.cell)), row.cell, kept(row)];
    return isNumber(row.paper) && !hidden.has(PAPER) ? [ours, [row.paper, INK, `paper, ${row.cell}`, percent(row.paper)]] : [ours];
  }).sort((a, b) => b[0] - a[0]).map(line => line.slice(1));
  const marks = view => [...by(rows, "generation")].sort((a, b) => a[0] - b[0]).map(([t, own]) => ({
    id: t, ...at(view, t, 1), y: 4, isColumn: true, title: `generation ${t}`, lines: lines(own) }));
  box.append(controls(legend(cells, hasPaper, set => { hidden = set; chart.set({ hidden: [...set] }); }),
    scales("diversity", "linear", scale => chart.draw(DATA.specs.retention[scale]))));
  chart = await plot(box, DATA.specs.retention.linear, "retention", "Diversity kept by generation", marks);
});

/** A figure over λ with a mark for each row: `heightOf` gives its y; `said`, a title, two entries of a line, and the paper's value. */
const overProportion = (name, label, heightOf, said) => figure(name, async (box, rows) => {
  const groups = [...by(rows, "group").keys()], hasPaper = rows.some(row => isNumber(row.paper) && isNumber(row.proportion));
  let hidden = new Set(), chart;
  const marks = view => rows.filter(row => !hidden.has(row.group)).map(row => {
    const [title, word, value, paper] = said(row);
    return { id: row.id, ...at(view, row.place, heightOf(row)), title, lines: [[color(groups.indexOf(row.group)), word, value],
      ...(isNumber(row.paper) && !hidden.has(PAPER) ? [[INK, PAPER, paper]] : [])] };
  });
  if (groups.length > 1 || hasPaper) box.append(controls(legend(groups, hasPaper, set => { hidden = set; chart.set({ hidden: [...set] }); })));
  chart = await plot(box, DATA.specs[name], name, label, marks);
});
await overProportion("half_life", "Generation at which half is gone, by synthetic proportion", row => row.half_life ?? row.reached,
  row => [row.loop, row.cell, isNumber(row.half_life) ? `generation ${row.half_life}` : `not by ${row.reached}`, `generation ${row.paper}`]);
await overProportion("kept", "Diversity kept in the end, by synthetic proportion", row => row.mean,
  row => [row.cell, `generation ${row.generation}`, kept(row), percent(row.paper)]);

await figure("unique", async (box, rows) => {
  const cells = [...by(rows, "cell").keys()], hasPaper = rows.some(row => isNumber(row.paper_unique_fraction));
  let hidden = new Set(), chart;
  const marks = view => rows.filter(row => !hidden.has(row.cell)).map(row => ({
    id: row.id, ...at(view, row.diversity_retention, row.unique_fraction), title: `generation ${row.generation}`,
    lines: [[color(cells.indexOf(row.cell)), row.cell, `${percent(row.diversity_retention)} kept, ${percent(row.unique_fraction)} distinct`]] }));
  box.append(controls(legend(cells, hasPaper, set => { hidden = set; chart.set({ hidden: [...set] }); }),
    scales("distinct texts", "log", scale => chart.draw(DATA.specs.unique[scale]))));
  chart = await plot(box, DATA.specs.unique.log, "unique", "Share of distinct texts against diversity kept", marks);
});

await figure("composition", async (box, rows) => {
  const parts = Object.entries(DATA.parts), { cells, said } = DATA.specs.composition.usermeta;
  const swatch = ([part, color]) => node("span", { class: "key" }, node("span", { class: "swatch", style: `background:${color}` }), part);
  const hasPaper = rows.some(row => isNumber(row.paper_True)), shown = [...by(rows, "cell")].filter(([cell]) => cells.includes(cell));
  box.append(controls(node("div", { class: "legend" }, ...parts.map(swatch),
    ...(hasPaper ? [node("span", { class: "key" }, ...key(undefined, "paper, upper end of True"))] : []))));
  if (said) box.append(node("p", { class: "about" }, `${said}.`));
  await multiples(box, shown, DATA.specs.composition, "composition", "Composition by generation", own => view => own.map(row => ({
    id: row.generation, ...at(view, row.generation, 1), y: 4, isColumn: true, title: `generation ${row.generation}`,
    lines: [...parts.map(([part, color]) => [color, part, percent(row[part])]),
      ...(isNumber(row.paper_True) ? [[INK, "paper, True", percent(row.paper_True)]] : [])] })));
});

await figure("measures", async (box, rows) => {
  const cells = [...by(rows, "cell").keys()], number = value => value.toLocaleString("en", { maximumSignificantDigits: 4 });
  let hidden = new Set(), charts = [];
  const ours = row => [color(cells.indexOf(row.cell)), row.cell,
    number(row.mean) + (isNumber(row.interval_low) ? ` (${number(row.interval_low)} – ${number(row.interval_high)}, n = ${row.seeds})` : "")];
  const real = row => [["real", INK, "D₀ itself"], ["control", "var(--soft)", "one half of D₀ beside the other"]]
    .filter(([key]) => isNumber(row[key])).map(([key, look, word]) => [look, word, number(row[key])]);
  const ends = own => {
    const values = own.flatMap(row => [row.lowest, row.highest, row.real, row.control]).filter(isNumber);
    const [low, high] = [Math.min, Math.max].map(end => values.reduce((a, b) => end(a, b)));
    return low < high ? { low, high } : { low: low - 0.05, high: high + 0.05 };
  };
  const marks = own => view => [...by(own, "generation")].map(([t, there]) => ({
    id: t, ...at(view, t, there[0].mean), y: 4, isColumn: true, title: `generation ${t}`,
    lines: [...there.filter(row => !hidden.has(row.cell)).map(ours), ...real(there[0])] }));
  box.append(controls(legend(cells, false, set => { hidden = set; charts.forEach(chart => chart.set({ hidden: [...set] })); })));
  charts = await multiples(box, [...by(rows, "measure")], DATA.specs.measures, "measures", "By generation", marks, ([, own]) => own[0].title, ends);
});
for (const name of ["board", "coverage_by_method", "depth_by_method"]) if (records[name]?.length) dataBelow(document.getElementById(name), name, [`${name}.csv`, `${name}.png`]);

function chooser(label, options, changed) {
  return node("select", { "aria-label": label, onchange: event => changed(event.currentTarget.value) },
    ...options.map(option => node("option", { value: option }, option)));
}

await figure("depth", async (box, rows) => {
  const loops = by(rows, "loop"), [first] = loops.keys();
  let loop = first, chart;
  const marks = view => loops.get(loop).filter(row => row.share > 0).map(row => ({
    id: row.id, x: view.scale("x")(row.generation) + view.scale("x").bandwidth() / 2, y: view.scale("y")(row.depth) + view.scale("y").bandwidth() / 2,
    title: row.generation ? `generation ${row.generation}` : "D₀, the original data",
    lines: [["var(--heat)", row.depth === "malformed" ? "malformed" : `depth ${row.depth}`, percent(row.share)]] }));
  const choice = chooser("Loop", [...loops.keys()], name => { loop = name; chart.set({ chosen: name, at: null }); });
  box.append(controls(choice, node("span", { class: "right" }, "0 ", node("span", { class: "scale" }), " 100%")));
  chart = await plot(box, DATA.specs.depth, "depth", "Depth by generation", marks, { chosen: first });
});

// What would turn the direction of a line, or is not to be seen, is spelled out, as plain.py does; the text is a line of its own direction.
const HIDDEN = /([\u{0}-\u{1f}\u{7f}-\u{9f}\u{ad}\u{61c}\u{180e}\u{200b}\u{200e}\u{200f}\u{2028}-\u{202e}\u{2060}-\u{206f}\u{d800}-\u{dfff}\u{feff}\u{fff9}-\u{fffb}\u{fffe}\u{ffff}\u{e0000}-\u{e007f}])/u;
function spelled(part) {
  const code = part.codePointAt(0);
  const shown = code < 0x20 || code === 0x7f ? String.fromCharCode(code === 0x7f ? 0x2421 : 0x2400 + code) : `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  return node("span", { class: "hidden-character", title: `U+${code.toString(16).toUpperCase().padStart(4, "0")}` }, shown);
}
function plain(text) {
  const parts = text.split(HIDDEN).map(part => HIDDEN.test(part) ? spelled(part) : part);
  return text ? [node("bdi", { dir: "auto" }, ...parts)] : [node("em", {}, "nothing")];
}
function expression(text) {
  if (!IS_JUDGED) return plain(text);
  const words = text.split(/( )/).map(word => /^(True|False)$/.test(word) ? node("span", { class: word }, word)
    : word === "(" || word === ")" ? node("span", { class: "bracket" }, word) : word);
  return text ? words : [node("em", {}, "nothing")];
}

const SAID = DATA.tables[WRITTEN].columns.slice(5, -1), TEXT = DATA.tables[WRITTEN].columns.at(-1);
const IS_JUDGED = SAID.includes("verdict");
await figure(WRITTEN, (box, rows) => {
  const loops = by(rows, "loop");
  const slider = node("input", { type: "range", min: 0, step: 1, "aria-label": "Generation", oninput: () => draw() });
  const shown = node("output", { "aria-live": "polite" });
  const body = node("div", { class: "scroll expressions", tabindex: 0, role: "region", "aria-label": "Texts" });
  const winner = node("div", { class: "winner" });
  const play = node("button", { type: "button", onclick: () => timer ? stop() : start() }, "▶ play");
  let generations = new Map(), timer = 0;
  const choice = chooser("Loop", [...loops.keys()], choose);
  box.append(controls(choice, slider, shown, play), body, winner);
  play.hidden = matchMedia("(prefers-reduced-motion: reduce)").matches;

  function judged(row) {
    return IS_JUDGED ? [node("span", { class: `verdict ${row.verdict}` }, row.verdict)] : [];
  }
  function start() {
    if (Number(slider.value) === Number(slider.max)) slider.value = 0;
    timer = setInterval(() => { slider.stepUp(); draw(); if (slider.value === slider.max) stop(); }, 350);
    play.textContent = "❚❚ pause";
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "▶ play";
  }
  function choose() {
    generations = by(loops.get(choice.value), "generation");
    slider.max = generations.size - 1;
    slider.value = generations.size - 1;
    const end = [...generations.values()].at(-1)[0], text = row => row[TEXT];
    const first = [...generations.values()].find(own => text(own[0]) === text(end));
    winner.replaceChildren(
      node("p", {}, end.share > 0.5 ? "The text that won in the end: " : "The most frequent in the end: ",
        `${percent(end.share)} of generation ${end.generation}`, IS_JUDGED ? ", " : "", ...judged(end),
        end.share > 0.5 && first[0].generation ? `; on top since generation ${first[0].generation}` : ""),
      node("div", { class: "expression" }, ...expression(text(end))));
    draw();
  }
  function draw() {
    const own = [...generations.values()][Number(slider.value)], t = own[0].generation;
    shown.textContent = t ? `generation ${t}` : "D₀, original data";
    slider.setAttribute("aria-valuetext", shown.textContent);
    body.replaceChildren(table(["share", ...SAID, TEXT], own.map(row => [
      [0, false, node("td", { class: "bar", style: `--share:${(100 * row.share).toFixed(2)}%` }, node("span", {}, percent(row.share)))],
      ...SAID.map(key => key === "verdict" ? [0, false, node("td", {}, ...judged(row))] : [0, true, node("td", { class: "number", "data-is": key }, String(row[key] ?? ""))]),
      [0, false, node("td", { class: "expression" }, ...expression(row[TEXT]))],
    ])));
  }
  choose();
});
document.body.dataset.ready = "true";
})();
