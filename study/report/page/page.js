"use strict";
// Shared by the other scripts: the study's data, the current selection, and helpers to create elements. Labels and
// prompts are untrusted and are inserted as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const cells = new Map(data.cells.map((cell) => [cell.id, cell]));
const withImages = data.cells.filter((cell) => (data.images[cell.id] || []).some(Boolean));
const first = withImages.find((cell) => cell.id === data.best) || withImages[0];
const chosen = { prompt: 0, left: first && denseOf(first), right: first && first.id };

/** The id of a cell's baseline if that has images, else the cell's own id. */
function denseOf(cell) {
  return withImages.some(({ id }) => id === cell.dense) ? cell.dense : cell.id;
}

// choose({prompt: 2}) notifies everything that shows a prompt. If a baseline is on the left, it follows the cell on the
// right.
const listeners = [];
function choose(change) {
  if ("right" in change && cells.get(chosen.left).role === "dense") change.left = denseOf(cells.get(change.right));
  Object.assign(chosen, change);
  for (const [keys, listener] of listeners) if (keys.some((key) => key in change)) listener();
}
function onChange(keys, listener) {
  listeners.push([keys, listener]);
  listener();
}

function element(kind, attributes = {}, ...children) {
  return withAttributes(document.createElement(kind), attributes, children);
}
function svgElement(kind, attributes = {}, ...children) {
  return withAttributes(document.createElementNS("http://www.w3.org/2000/svg", kind), attributes, children);
}
function withAttributes(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function shortened(text, length = 72) {
  const plain = text.replace(/\s+/g, " ").trim() || "(empty prompt)";
  return plain.length > length ? `${plain.slice(0, length - 1)}…` : plain;
}

/** Create a labelled <select>. options: [value, text]. */
function selection(label, options, value, change) {
  const list = element("select", { "aria-label": label, onchange: () => change(list.value) });
  list.append(...options.map(([key, text]) => element("option", { value: key }, shortened(text))));
  list.value = value;
  return element("label", { class: "field" }, element("span", {}, label), list);
}

/** Create radio buttons that look like one segmented control. options: [value, text]. */
function segments(label, options, value, change) {
  const name = `choice-${(segments.made = (segments.made || 0) + 1)}`;
  const made = options.map(([key, text]) =>
    element(
      "label",
      {},
      element("input", { type: "radio", name, value: key, checked: key === value, onchange: () => change(key) }),
      element("span", {}, text),
    ),
  );
  return element("fieldset", { class: "segments" }, element("legend", {}, label), ...made);
}

/** Create a slider with its label and value. format: value to text. */
function slider(label, { min, max, value, step = 1 }, format, change) {
  const shown = element("output", {}, format(value));
  const input = element("input", { type: "range", min, max, step, value, "aria-label": label });
  input.addEventListener("input", () => {
    shown.textContent = format(+input.value);
    input.setAttribute("aria-valuetext", format(+input.value));
    change(+input.value);
  });
  input.setAttribute("aria-valuetext", format(value));
  return element("label", { class: "field range" }, element("span", {}, label), input, shown);
}

/** Fill a section and show it. */
function reveal(id, ...children) {
  const place = document.getElementById(`${id}-live`);
  if (!place) return null;
  place.append(...children);
  place.closest("section").hidden = place.hidden = false;
  return place;
}

/** Call `draw(width)` now and whenever the width of `place` changes. */
function fitted(place, draw) {
  let before = 0;
  new ResizeObserver(() => {
    const width = Math.floor(place.clientWidth);
    if (width && width !== before) draw((before = width));
  }).observe(place);
}

/** Return about `count` round numbers on an axis from low to high. */
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((x) => x * power).find((x) => x >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}
const plain = (x) => `${+x.toPrecision(6)}`.replace("-", "−");
const sum = (values) => values.reduce((a, b) => a + b, 0);
