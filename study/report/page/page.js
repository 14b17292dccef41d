"use strict";
// Shared by the scripts after it: the study's data, what is chosen, and how elements are made. Whatever was
// written by others, labels and prompts, becomes text and never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const cells = new Map(data.cells.map((cell) => [cell.id, cell]));
const withImages = data.cells.filter((cell) => (data.images[cell.id] || []).some(Boolean));
const first = withImages.find((cell) => cell.id === data.best) || withImages[0];
const chosen = { prompt: 0, left: first && denseOf(first), right: first && first.id };

/** The id of the baseline of a cell, as far as it has images; else its own. */
function denseOf(cell) {
  return withImages.some(({ id }) => id === cell.dense) ? cell.dense : cell.id;
}

// choose({prompt: 2}) tells everything that shows a prompt. A cell is set beside a baseline of its own.
const listeners = [];
function choose(change) {
  if ("right" in change && cells.get(chosen.left).role === "dense") change.left = denseOf(cells.get(change.right));
  Object.assign(chosen, change);
  for (const [keys, hear] of listeners) if (keys.some((key) => key in change)) hear();
}
function heed(keys, hear) {
  listeners.push([keys, hear]);
  hear();
}

function element(kind, attributes = {}, ...children) {
  return filled(document.createElement(kind), attributes, children);
}
function drawn(kind, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", kind), attributes, children);
}
function filled(made, attributes, children) {
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

/** A labelled <select>; options are [value, text]. */
function selection(label, options, value, change) {
  const list = element("select", { "aria-label": label, onchange: () => change(list.value) });
  list.append(...options.map(([key, text]) => element("option", { value: key }, shortened(text))));
  list.value = value;
  return element("label", { class: "field" }, element("span", {}, label), list);
}

/** A few choices, all in sight: radio buttons that look like one. */
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

/** A slider with its name and what it stands at. said: value to text. */
function slider(label, { min, max, value, step = 1 }, said, change) {
  const shown = element("output", {}, said(value));
  const input = element("input", { type: "range", min, max, step, value, "aria-label": label });
  input.addEventListener("input", () => {
    shown.textContent = said(+input.value);
    input.setAttribute("aria-valuetext", said(+input.value));
    change(+input.value);
  });
  input.setAttribute("aria-valuetext", said(value));
  return element("label", { class: "field range" }, element("span", {}, label), input, shown);
}

/** Gives a section its content and puts it in sight. */
function live(id, ...children) {
  const place = document.getElementById(`${id}-live`);
  if (!place) return null;
  place.append(...children);
  place.closest("section").hidden = place.hidden = false;
  return place;
}

/** Calls `draw(width)` now and whenever the width of `place` changes. */
function fitted(place, draw) {
  let before = 0;
  new ResizeObserver(() => {
    const width = Math.floor(place.clientWidth);
    if (width && width !== before) draw((before = width));
  }).observe(place);
}

/** Round numbers that cover an axis from low to high, some `count` of them. */
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
