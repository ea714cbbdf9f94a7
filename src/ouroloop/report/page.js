"use strict";
// Draws the report from the JSON in #data. What a model wrote is only ever put into text nodes.

const DATA = JSON.parse(document.getElementById("data").textContent);
const records = name => DATA.tables[name].rows.map(row =>
  Object.fromEntries(row.map((value, i) => [DATA.tables[name].columns[i], value])));
function by(rows, key) {
  const groups = new Map();
  for (const row of rows) groups.has(row[key]) ? groups.get(row[key]).push(row) : groups.set(row[key], [row]);
  return groups;
}
const max = values => values.reduce((a, b) => Math.max(a, b), -Infinity);  // Math.max(...) overflows on long loops
const min = values => values.reduce((a, b) => Math.min(a, b), Infinity);
const isNumber = value => typeof value === "number";
function percent(share) {
  const value = 100 * share;
  return `${value === 0 || value >= 10 ? value.toFixed(1) : value >= 0.1 ? value.toFixed(2) : value.toPrecision(1)}%`;
}
const section = name => document.getElementById(name);

function node(tag, attributes = {}, ...children) {
  const isSvg = SVG.has(tag);
  const made = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter(child => child !== undefined));
  return made;
}
const SVG = new Set(["svg", "g", "path", "line", "rect", "circle", "text", "tspan"]);

// ---- series: seven colours, six marks, then dashes, so that no two look alike --------------------------------

const look = i => ({ color: `var(--s${i % 7})`, mark: i % 6, dash: ["", "9 4", "3 4", "12 4 3 4"][Math.floor(i / 7) % 4] });
const MARKS = [
  r => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  r => `M${-r} ${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  r => `M0 ${-1.2 * r}L${1.15 * r} ${r}H${-1.15 * r}z`,
  r => `M0 ${-1.35 * r}L${1.35 * r} 0L0 ${1.35 * r}L${-1.35 * r} 0z`,
  r => `M${-r} ${-r}L${r} ${r}M${-r} ${r}L${r} ${-r}`,
  r => `M0 ${1.2 * r}L${1.15 * r} ${-r}H${-1.15 * r}z`,
];
const mark = (series, x, y, r = 3.4, open = series.open) => node("path", {
  class: "mark", d: MARKS[series.mark || 0](r), transform: `translate(${x} ${y})`, stroke: series.color, fill: open ? "var(--card)" : series.color,
});

const keyOf = one => one.kind === "paper" ? "the paper" : one.name;
function legend(series, hidden, redraw) {
  const last = one => one.kind === "paper";
  const keys = [...by([...series].sort((a, b) => last(a) - last(b)).map(one => ({ one, key: keyOf(one) })), "key")].map(([key, [{ one }]]) => node("button", {
    type: "button", "aria-pressed": "true",
    onclick: event => {
      if (!hidden.delete(key)) hidden.add(key);
      event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(key)));
      redraw();
    },
  }, sample(one.kind === "paper" ? { ...one, color: "var(--ink)" } : one), key));
  return node("div", { class: "legend", role: "group", "aria-label": "Show or hide" }, ...keys);
}
const stroke = (one, d) => one.kind === "paper" ? node("path", { d, class: "published", stroke: one.color })
  : node("path", { d, class: "mean", stroke: one.color, "stroke-dasharray": one.dash });
const sample = one => node("svg", { viewBox: "0 0 30 12", "aria-hidden": true }, stroke(one, "M1 6H29"),
  ...(one.kind === "paper" ? [] : [mark(one, 15, 6, 3.2)]));

// ---- axes --------------------------------------------------------------------------------------------------------

function scale(axis, low, high) {
  const f = axis.log ? value => Math.log10(Math.max(value, axis.from)) : value => value;
  const [a, b] = [f(axis.from), f(axis.to)];
  return value => low + (f(value) - a) / (b - a || 1) * (high - low);
}
function ticks(axis, count) {
  if (axis.ticks) return axis.ticks;
  if (axis.log) {
    const decades = [];
    for (let e = Math.floor(Math.log10(axis.to)); 10 ** e >= axis.from * 0.999; e--) decades.push(Number(`1e${e}`));
    return decades;
  }
  const rough = (axis.to - axis.from) / count, power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].find(factor => factor * power >= rough * 0.999) * power;
  if (axis.whole) step = Math.max(1, step);
  const values = [];
  for (let i = Math.ceil(axis.from / step - 1e-9); i * step <= axis.to + step * 1e-6; i++) values.push(Number((i * step).toPrecision(12)));
  return values;
}
const axisText = axis => axis.format || (value => String(value));

/** A chart of lines, bands, areas and marks, with a cursor for pointer, touch and keyboard; returns its redraw. */
function chart(box, spec) {
  const plot = node("div", { class: "chart", tabindex: 0, role: "application", "aria-label": `${spec.label}. Arrow keys read the values.` });
  const tip = node("div", { class: "tip", "aria-live": "polite", hidden: true });
  let at = null, geometry;
  box.append(plot);

  function draw() {
    const { x, y } = spec.axes();
    const shown = spec.series.filter(one => !spec.hidden.has(keyOf(one)));
    const width = Math.max(plot.clientWidth, 200), height = spec.height(width);
    const named = spec.named && width > 640 ? shown.filter(one => one.kind !== "paper") : [];
    const margin = { left: 50, right: named.length && named.length < 10 ? 130 : 12, top: 8, bottom: spec.bare ? 24 : 42 };
    const X = scale(x, margin.left, width - margin.right), Y = scale(y, height - margin.bottom, margin.top);
    const grid = node("g", { class: "grid" });
    for (const value of ticks(y, spec.bare ? 2 : 6)) {
      grid.append(node("line", { x1: margin.left, x2: width - margin.right, y1: Y(value), y2: Y(value) }),
        node("text", { x: margin.left - 7, y: Y(value) + 4, "text-anchor": "end" }, axisText(y)(value)));
    }
    for (const value of ticks(x, width / 90)) {
      grid.append(node("text", { x: X(value), y: height - margin.bottom + 17, "text-anchor": "middle" }, axisText(x)(value)));
    }
    if (!spec.bare) grid.append(node("text", { x: (margin.left + width - margin.right) / 2, y: height - 5, "text-anchor": "middle" }, x.label));
    const marks = node("g");
    for (const one of shown) marks.append(...drawSeries(one, X, Y, y));
    const cursor = node("g");
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": true }, grid, marks,
      node("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: height - margin.bottom, y2: height - margin.bottom }), cursor);
    if (margin.right > 100) endNames(svg, named, X, Y, width - margin.right, height - margin.bottom);
    plot.replaceChildren(svg, tip);
    geometry = { X, Y, width, height, margin, shown, cursor };
    if (at !== null) point(at);
  }

  const places = () => [...new Set(geometry.shown.flatMap(one => one.points.map(p => p.x)))].sort((a, b) => a - b);
  function point(target) {
    const { X, Y, shown, cursor, margin, height } = geometry;
    cursor.replaceChildren();
    tip.hidden = target === null;
    at = target;
    if (target === null) return;
    const found = spec.nearest === "xy" ? [target] : shown.flatMap(one => one.points.filter(p => p.x === target && !p.skip).map(p => ({ one, p })));
    if (spec.nearest !== "xy") cursor.append(node("line", { class: "cursor", x1: X(target), x2: X(target), y1: margin.top, y2: height - margin.bottom }));
    for (const { one, p } of found) {
      if (one.kind !== "area") cursor.append(node("circle", { class: "dot", cx: X(p.x), cy: Y(p.y), r: 4.5, stroke: one.color }));
    }
    const rows = spec.ordered ? found : [...found].sort((a, b) => b.p.y - a.p.y);
    tip.replaceChildren(node("b", {}, spec.nearest === "xy" ? found[0].p.title : spec.title(target)),
      ...rows.slice(0, 14).map(({ one, p }) => node("div", {},
        node("i", { style: `background:${one.color}` }), node("span", {}, one.name), node("span", {}, p.text))));
    if (rows.length > 14) tip.append(node("small", {}, `and ${rows.length - 14} more`));
    place(tip, X(found.length ? found[0].p.x : target), spec.nearest === "xy" ? Y(found[0].p.y) : margin.top + 6, geometry.width);
  }
  const nearest = (px, py) => {
    const { X, Y, shown } = geometry;
    let best = null, distance = Infinity;
    for (const one of shown) {
      for (const p of one.points) {
        const d = spec.nearest === "xy" ? Math.hypot(X(p.x) - px, Y(p.y) - py) : Math.abs(X(p.x) - px);
        if (d < distance && !p.skip) [best, distance] = [spec.nearest === "xy" ? { one, p } : p.x, d];
      }
    }
    return best;
  };
  const follow = event => {
    const area = plot.getBoundingClientRect();
    point(nearest(event.clientX - area.left, event.clientY - area.top));
  };
  plot.addEventListener("pointermove", follow);
  plot.addEventListener("pointerdown", follow);
  plot.addEventListener("pointerleave", () => point(null));
  plot.addEventListener("blur", () => point(null));
  plot.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1 }[event.key];
    if (event.key === "Escape") point(null);
    if (!step) return;
    event.preventDefault();
    const all = spec.nearest === "xy" ? geometry.shown.flatMap(one => one.points.map(p => ({ one, p }))) : places();
    const now = all.findIndex(one => spec.nearest === "xy" ? at && one.p === at.p : one === at);
    if (all.length) point(all[Math.min(Math.max(now + step, 0), all.length - 1)]);
  });
  new ResizeObserver(() => { if (!geometry || plot.clientWidth !== geometry.width) draw(); }).observe(plot);
  draw();
  return draw;
}

function place(tip, x, y, width) {
  const right = x + 14 + tip.offsetWidth > width;
  tip.style.left = `${Math.max(0, right ? x - 14 - tip.offsetWidth : x + 14)}px`;
  tip.style.top = `${Math.max(0, y)}px`;
}

function drawSeries(one, X, Y, y) {
  const path = (points, value) => points.map((p, i) => `${i ? "L" : "M"}${X(p.x).toFixed(1)} ${Y(value(p)).toFixed(1)}`).join("");
  const drawn = [];
  const banded = one.points.filter(p => isNumber(p.low) && (one.kind === "area" || p.high > p.low));
  if (banded.length > 1) {
    const back = [...banded].reverse().map(p => `L${X(p.x).toFixed(1)} ${Y(p.low).toFixed(1)}`).join("");
    drawn.push(node("path", { class: one.kind === "area" ? "area" : "band", fill: one.color, d: `${path(banded, p => p.high)}${back}z` }));
  }
  if (one.kind === "area") return drawn;
  const line = one.points.filter(p => !p.single);
  if (line.length > 1) {
    drawn.push(stroke(one, path(line, p => p.y)));
  }
  if (one.kind === "paper") return one.points.length > 1 ? drawn : [mark({ ...one, mark: 3, open: true }, X(one.points[0].x), Y(one.points[0].y), 4)];
  const every = one.everyMark ? 1 : Math.max(1, Math.ceil(one.points.length / 12));
  one.points.forEach((p, i) => {
    if (p.unmarked || (!p.single && (i + one.mark) % every && i !== one.points.length - 1)) return;
    drawn.push(mark(p.censored ? { ...one, mark: 2, open: true } : one, X(p.x), Y(p.y), one.everyMark ? 4 : 3));
  });
  return drawn;
}

function endNames(svg, series, X, Y, right, bottom) {
  const ends = series.filter(one => one.points.length).map(one => {
    const p = one.points[one.points.length - 1];
    return { one, y: Y(p.y) + 4 };
  }).sort((a, b) => a.y - b.y);
  ends.forEach((end, i) => { if (i) end.y = Math.max(end.y, ends[i - 1].y + 15); });
  const over = ends.length ? Math.max(0, ends[ends.length - 1].y - bottom) : 0;
  for (const { one, y } of ends) {
    const name = one.name.length > 18 ? `${one.name.slice(0, 17)}…` : one.name;
    svg.append(mark(one, right + 12, y - over - 4, 3), node("text", { class: "name", x: right + 21, y: y - over }, name));
  }
}

// ---- the tables behind the figures ------------------------------------------------------------------------------

function dataBelow(box, name, files) {
  const { columns, rows } = DATA.tables[name];
  const summary = node("summary", {}, "Data, also in ");
  files.forEach((file, i) => summary.append(i ? " and " : "", node("code", {}, file)));
  const details = node("details", {}, summary);
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector("table")) {
      const shown = rows.slice(0, 1000).map(row => row.map(value => [value, isNumber(value)]));
      details.append(node("div", { class: "scroll", tabindex: 0 }, table(columns, shown)));
      if (rows.length > 1000) details.append(node("p", { class: "about" }, `The first 1,000 of ${rows.length.toLocaleString("en")} rows.`));
    }
  });
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

function figure(name, draw) {
  const box = section(name), rows = records(name);
  if (!rows.length) box.append(node("p", { class: "absent" }, "Nothing to show: it was not measured, or could not be computed."));
  else {
    draw(box, rows);
    dataBelow(box, name, name === "expressions" ? [`${name}.csv`] : [`${name}.csv`, `${name}.png`]);
  }
}
function scaleToggle(what, isLog, choose) {
  const buttons = ["linear", "log"].map(option => node("button", {
    type: "button", "aria-pressed": String((option === "log") === isLog),
    onclick: event => {
      for (const one of buttons) one.setAttribute("aria-pressed", String(one === event.currentTarget));
      choose(option === "log");
    },
  }, option));
  return node("div", { class: "segments right", role: "group", "aria-label": `Scale of the axis of ${what}` }, ...buttons);
}

// ---- the figures -------------------------------------------------------------------------------------------------

const CELLS = [...new Set(["retention", "composition", "half_life"].flatMap(name => records(name).map(row => row.cell)))];
const lookOf = cell => look(CELLS.indexOf(cell));
const last = max([1, ...["retention", "composition"].flatMap(name => records(name).map(row => row.generation))]);

figure("retention", (box, rows) => {
  const series = [], hidden = new Set();
  for (const [cell, own] of by(rows, "cell")) {
    const several = own.some(row => row.seeds > 1);
    series.push({ name: cell, kind: "line", ...lookOf(cell), points: own.map(row => ({
      x: row.generation, y: row.mean, low: several ? row.lowest : undefined, high: row.highest,
      text: `${percent(row.mean)}${isNumber(row.interval_low) ? ` (${percent(row.interval_low)} – ${percent(row.interval_high)}, n = ${row.seeds})` : ""}`,
    })) });
    const paper = own.filter(row => isNumber(row.paper));
    const published = paper.map(row => ({ x: row.generation, y: row.paper, text: percent(row.paper) }));
    if (paper.length) series.push({ name: `paper, ${cell}`, kind: "paper", ...lookOf(cell), points: published });
  }
  const positive = rows.map(row => row.mean).filter(value => value > 0);
  const floor = 10 ** Math.floor(Math.log10(Math.max(1e-4, min([0.1, ...positive]))));
  let log = false;
  const spec = {
    label: "Diversity retention by generation", series, hidden, named: true, height: width => width < 560 ? 280 : 380,
    title: x => `generation ${x}`,
    axes: () => ({
      x: { label: "generation", from: 0, to: last, whole: true },
      y: {
        log, from: log ? floor : 0, to: max([1, ...rows.map(row => row.highest)]),
        format: value => `${log && value === floor ? "≤ " : ""}${Number((100 * value).toPrecision(6))}%`,
      },
    }),
  };
  const controls = node("div", { class: "controls" });
  box.append(controls);
  const draw = chart(box, spec);
  controls.append(legend(series, hidden, draw), scaleToggle("diversity", log, isLog => { log = isLog; draw(); }));
});

figure("half_life", (box, rows) => {
  const withoutProportion = rows.some(row => !isNumber(row.proportion));
  const known = rows.map(row => row.proportion).filter(isNumber);
  const pad = Math.max(0.04, (max(known) - min(known)) * 0.07);
  const aside = known.length ? max(known) + 2 * pad : 0;
  const place = row => isNumber(row.proportion) ? row.proportion : aside;
  const groupName = row => row.cell.split(", ").filter(part => !part.startsWith("λ = ")).join(", ") || row.cycle;
  const groups = by(rows.map(row => ({ ...row, group: groupName(row) })), "group"), series = [];
  [...groups].forEach(([name, own], i) => {
    const points = own.map(row => ({
      x: place(row), y: isNumber(row.half_life) ? row.half_life : row.reached, single: true, censored: !isNumber(row.half_life),
      title: row.loop, text: isNumber(row.half_life) ? `generation ${row.half_life}` : `not by ${row.reached}`,
    }));
    const medians = [...by(own.filter(row => isNumber(row.proportion)), "proportion")].map(([x, cell]) => {
      const sorted = cell.map(row => isNumber(row.half_life) ? row.half_life : Infinity).sort((a, b) => a - b);
      return { x, y: (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2, unmarked: true, skip: true };
    }).filter(p => isFinite(p.y)).sort((a, b) => a.x - b.x);
    series.push({ name, kind: "line", ...look(i), everyMark: true, points: [...medians, ...points] });
    const published = by(own.filter(row => isNumber(row.paper) && isNumber(row.proportion)), "proportion");
    const paper = [...published].map(([x, [{ paper: y }]]) => ({ x, y, title: "the paper", text: `generation ${y}` }));
    if (paper.length) series.push({ name: `paper, ${name}`, kind: "paper", ...look(i), points: paper.sort((a, b) => a.x - b.x) });
  });
  const distinct = [...new Set(known)].sort((a, b) => a - b), hidden = new Set();
  const gaps = distinct.every((value, i) => !i || value - distinct[i - 1] > (distinct.at(-1) - distinct[0]) * 0.07);
  const marks = [...(gaps && distinct.length < 9 ? distinct : [distinct[0], distinct.at(-1)].filter(isNumber)), ...(withoutProportion ? [aside] : [])];
  const spec = {
    label: "Half-life of diversity against the synthetic proportion", series, hidden, nearest: "xy", height: () => 300,
    axes: () => ({
      x: {
        label: "synthetic proportion λ", from: (known.length ? min(known) : 0) - pad, to: max([aside * withoutProportion, ...known]) + pad,
        ticks: marks, format: value => withoutProportion && value === aside ? "no λ" : String(value),
      },
      y: { from: 0, to: max(rows.map(row => Math.max(row.reached, row.half_life || 0, row.paper || 0))), whole: true },
    }),
  };
  const controls = node("div", { class: "controls" });
  box.append(controls);
  controls.append(legend(series, hidden, chart(box, spec)));
});

figure("unique", (box, rows) => {
  const series = [], hidden = new Set();
  for (const [cell, own] of by(rows, "cell")) {
    series.push({ name: cell, kind: "line", ...lookOf(cell), points: own.map(row => ({
      x: row.diversity_retention, y: row.unique_fraction, title: `generation ${row.generation}`,
      text: `${percent(row.diversity_retention)} of diversity, ${percent(row.unique_fraction)} distinct`,
    })) });
    const paper = own.filter(row => isNumber(row.paper_unique_fraction));
    if (paper.length) series.push({ name: `paper, ${cell}`, kind: "paper", ...lookOf(cell), points: paper.map(row => ({
      x: row.paper_diversity_retention, y: row.paper_unique_fraction, title: `generation ${row.generation}`,
      text: `${percent(row.paper_diversity_retention)} of diversity, ${percent(row.paper_unique_fraction)} distinct`,
    })) });
  }
  const lowest = min([0.1, ...series.flatMap(one => one.points.map(p => p.y))]);
  let log = true;
  const spec = {
    label: "Share of distinct texts against diversity kept", series, hidden, nearest: "xy", height: () => 300,
    axes: () => ({
      x: {
        label: "diversity kept", from: max([1, ...rows.map(row => row.diversity_retention)]), to: 0,
        ticks: [1, 0.75, 0.5, 0.25, 0], format: value => `${100 * value}%`,
      },
      y: { log, from: log ? 10 ** Math.floor(Math.log10(lowest)) : 0, to: 1, format: value => `${Number((100 * value).toPrecision(3))}%` },
    }),
  };
  const controls = node("div", { class: "controls" });
  box.append(controls);
  const draw = chart(box, spec);
  controls.append(legend(series, hidden, draw), scaleToggle("distinct texts", log, isLog => { log = isLog; draw(); }));
});

const PARTS = ["True", "False", "malformed"];
figure("composition", (box, rows) => {
  const swatch = part => node("span", { class: "key" }, node("span", { class: "swatch", style: `background:var(--${part.toLowerCase()})` }), part);
  const hasPaper = rows.some(row => isNumber(row.paper_True));
  const paperKey = hasPaper ? [node("span", { class: "key" }, sample({ kind: "paper", color: "var(--ink)" }), "paper, upper end of True")] : [];
  const isLone = by(rows, "cell").size === 1;
  const multiples = node("div", { class: isLone ? "" : "multiples" });
  box.append(node("div", { class: "controls" }, node("div", { class: "legend" }, ...PARTS.map(swatch), ...paperKey)), multiples);
  for (const [cell, own] of by(rows, "cell")) {
    const series = PARTS.map((part, k) => ({ name: part, kind: "area", color: `var(--${part.toLowerCase()})`, points: own.map(row => {
      const low = PARTS.slice(0, k).reduce((sum, before) => sum + row[before], 0);
      return { x: row.generation, y: low + row[part], low, high: low + row[part], text: percent(row[part]) };
    }) }));
    const paper = own.filter(row => isNumber(row.paper_True));
    const published = paper.map(row => ({ x: row.generation, y: row.paper_True, text: percent(row.paper_True) }));
    if (paper.length) series.push({ name: "paper, True", kind: "paper", color: "var(--ink)", points: published });
    const one = node("div", {}, node("div", { class: "chart" }, node("b", { class: "name" }, cell)));
    multiples.append(one);
    chart(one, {
      label: `Composition by generation, ${cell}`, series, hidden: new Set(), bare: true, ordered: true,
      height: () => isLone ? 240 : 150, title: x => `generation ${x}`,
      axes: () => ({ x: { from: 0, to: last, whole: true }, y: { from: 0, to: 1, format: value => `${100 * value}%` } }),
    });
  }
});

const isDepth = level => level !== "malformed";
const depthName = level => isDepth(level) ? `depth ${level}` : level;
figure("depth", (box, rows) => {
  const loops = by(rows, "loop");
  const holder = node("div", {
    class: "chart", tabindex: 0, role: "application", "aria-label": "Depth by generation. Arrow keys read the values.",
  });
  const tip = node("div", { class: "tip", "aria-live": "polite", hidden: true });
  const choice = chooser("Loop", [...loops.keys()], draw);
  box.append(node("div", { class: "controls" }, choice, node("span", { class: "right" }, "0 ", node("span", { class: "scale" }), " 100%")), holder);
  let cells = [], at = -1;
  function draw() {
    const own = loops.get(choice.value), end = max([1, ...own.map(row => row.generation)]);
    const deepest = max([0, ...own.map(row => row.depth).filter(isDepth).map(Number)]);
    const levels = [...Array(deepest + 1).keys()].map(String).filter(d => d !== "0" || own.some(row => row.depth === "0"));
    if (own.some(row => !isDepth(row.depth))) levels.push("malformed");
    const width = Math.max(holder.clientWidth, 200), left = 74, step = (width - left - 4) / (end + 1), size = levels.length > 12 ? 14 : 26;
    const svg = node("svg", { viewBox: `0 0 ${width} ${levels.length * size + 42}`, height: levels.length * size + 42, "aria-hidden": true });
    levels.forEach((level, i) => svg.append(
      node("text", { x: left - 8, y: i * size + size / 2 + 4, "text-anchor": "end" }, depthName(level))));
    for (const value of ticks({ from: 0, to: end, whole: true }, width / 90)) {
      svg.append(node("text", { x: left + (value + 0.5) * step, y: levels.length * size + 17, "text-anchor": "middle" }, String(value)));
    }
    svg.append(node("text", { x: left + (width - left) / 2, y: levels.length * size + 36, "text-anchor": "middle" }, "generation"));
    cells = own.filter(row => row.share > 0).map(row => ({ row, x: left + row.generation * step, y: levels.indexOf(row.depth) * size }));
    for (const { row, x, y } of cells) {
      svg.append(node("rect", { x: x.toFixed(1), y: y + 1, width: Math.max(1, step - (step > 6 ? 1.5 : 0)).toFixed(1), height: size - 2, rx: step > 6 ? 2 : 0,
        fill: `rgb(var(--heat), ${(0.04 + 0.96 * Math.sqrt(row.share)).toFixed(3)})` }));
    }
    holder.replaceChildren(svg, tip);
    show(-1);
    holder.drawn = { width, step, size };
  }
  function show(i) {
    at = i;
    tip.hidden = i < 0;
    if (i < 0) return;
    const { row, x, y } = cells[i];
    const when = row.generation ? `generation ${row.generation}` : "D₀, the original data";
    tip.replaceChildren(node("b", {}, when), `${depthName(row.depth)}: ${percent(row.share)}`);
    place(tip, x + holder.drawn.step, y, holder.drawn.width);
  }
  const follow = event => {
    const area = holder.getBoundingClientRect(), { step, size } = holder.drawn;
    const [x, y] = [event.clientX - area.left, event.clientY - area.top];
    show(cells.findIndex(cell => x >= cell.x && x < cell.x + step && y >= cell.y && y < cell.y + size));
  };
  holder.addEventListener("pointermove", follow);
  holder.addEventListener("pointerdown", follow);
  for (const left of ["pointerleave", "blur"]) holder.addEventListener(left, () => show(-1));
  holder.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(Math.min(Math.max(at + step, 0), cells.length - 1));
  });
  new ResizeObserver(() => { if (!holder.drawn || holder.clientWidth !== holder.drawn.width) draw(); }).observe(holder);
  draw();
});

function chooser(label, options, changed) {
  return node("select", { "aria-label": label, onchange: () => changed() }, ...options.map(option => node("option", { value: option }, option)));
}

function expression(text) {
  const words = text.split(/( )/).map(word => /^(True|False)$/.test(word) ? node("span", { class: word }, word)
    : word === "(" || word === ")" ? node("span", { class: "bracket" }, word) : word);
  return text ? words : [node("em", {}, "nothing")];
}

figure("expressions", (box, rows) => {
  const loops = by(rows, "loop");
  const slider = node("input", { type: "range", min: 0, step: 1, "aria-label": "Generation", oninput: () => draw() });
  const shown = node("output", { "aria-live": "polite" });
  const body = node("div", { class: "scroll expressions", tabindex: 0 });
  const winner = node("div", { class: "winner" });
  const play = node("button", { type: "button", onclick: () => timer ? stop() : start() }, "▶ play");
  let generations = new Map(), timer = 0;
  const choice = chooser("Loop", [...loops.keys()], choose);
  box.append(node("div", { class: "controls" }, choice, slider, shown, play), body, winner);
  play.hidden = matchMedia("(prefers-reduced-motion: reduce)").matches;

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
    const end = [...generations.values()].at(-1)[0], key = row => row.expression;
    const first = [...generations.values()].find(own => key(own[0]) === key(end));
    winner.replaceChildren(
      node("p", {}, end.share > 0.5 ? "The text that won in the end: " : "The most frequent in the end: ",
        `${percent(end.share)} of generation ${end.generation}, `, node("span", { class: `verdict ${end.verdict}` }, end.verdict),
        end.share > 0.5 && first[0].generation ? `; on top since generation ${first[0].generation}` : ""),
      node("div", { class: "expression" }, ...expression(end.expression)));
    draw();
  }
  function draw() {
    const own = [...generations.values()][Number(slider.value)], t = own[0].generation;
    shown.textContent = t ? `generation ${t}` : "D₀, original data";
    slider.setAttribute("aria-valuetext", shown.textContent);
    body.replaceChildren(table(["share", "verdict", "depth", "expression"], own.map(row => [
      [0, false, node("td", { class: "bar", style: `--share:${(100 * row.share).toFixed(2)}%` }, node("span", {}, percent(row.share)))],
      [0, false, node("td", {}, node("span", { class: `verdict ${row.verdict}` }, row.verdict))],
      [row.depth, true],
      [0, false, node("td", { class: "expression" }, ...expression(row.expression))],
    ])));
  }
  choose();
});

// ---- loops and configuration ------------------------------------------------------------------------------------

{
  const { facts } = DATA, rows = records("loops");
  section("kind").textContent = `· ${facts.kind}`;
  section("lead").textContent = facts.lead;
  section("progress").textContent = facts.progress;
  section("progress").hidden = !facts.progress;
  const show = (value, format = String) => isNumber(value) ? format(value) : value === "" ? "–" : value;
  section("loops").append(node("div", { class: "scroll", tabindex: 0 }, table(
    ["loop", "state", "generation", "diversity kept", "True", "malformed", "distinct", "half gone at", "minutes"],
    rows.map(row => [
      [row.loop, false], [row.state, false], [row.generation, true], [show(row.diversity_retention, percent), true], [show(row.correctness, percent), true],
      [show(row.error_rate, percent), true], [show(row.num_unique, value => value.toLocaleString("en")), true],
      [row.half_life === "" ? (row.generation ? `> ${row.generation}` : "–") : row.half_life, true], [row.minutes, true],
    ]))), node("p", { class: "about" }, facts.spent));
  section("configuration").append(node("dl", {}, ...Object.entries(facts.configuration).map(([key, value]) =>
    node("div", { class: value.length > 24 ? "long" : undefined }, node("dt", {}, key), node("dd", {}, value)))));
}
