// Per-step maps over the image: which tokens ran and, where traces were kept, scores and distance to dense.

(() => {
  if (!document.getElementById("maps-live")) return;
  if (!("DecompressionStream" in window)) {
    reveal("maps", element("p", {}, "This browser cannot unpack the maps; focus.png beside this file shows some."));
    return;
  }
  // name: of the map; curve: title of the per-step curve; format: its values as text; note: below the map
  const KINDS = {
    ran: {
      name: "Tokens that ran",
      curve: "Share of a full step’s work",
      format: (x) => `${Math.round(100 * x)} %`,
      note:
        "Pale: left out; fainter: one token for several places, or some of the blocks. In the middle the share of the " +
        "steps that each token ran.",
    },
    error: {
      name: "Distance to dense",
      curve: "Mean distance to dense",
      format: (x) => (x ? x.toPrecision(2) : "0"),
      note:
        "The image that the state points to against the dense run’s at the same noise level, relative to the size of " +
        "the dense image. In the middle the mean over the steps. One scale for all cells, to the 99th percentile.",
    },
    score: {
      name: "Score",
      curve: "Rank correlation with the step before",
      format: (x) => x.toFixed(2).replace("-", "−"),
      note:
        "What RAS chooses tokens by: the standard deviation of the velocity over its channels; a token left out keeps " +
        "its own. In the middle the mean over the steps. One scale for all cells, to the 99th percentile.",
    },
  };
  const view = { kind: Object.keys(data.maps)[0], cell: null, step: null, playing: null };
  let frames = []; // of the current map: one Uint8Array per step
  let record = null; // of the current map, as in data.maps
  let image = null; // pixels of the current image

  const canvas = (name) => element("canvas", { role: "img", "aria-label": name });
  const [step, total] = [canvas("This step"), canvas("All steps")];
  const plainImage = element("img", { alt: "The image" });
  const stepName = element("figcaption");
  const totalName = element("figcaption");
  const bar = element("canvas", { class: "bar", width: 256, height: 1, "aria-hidden": "true" });
  const ends = element("div", { class: "ends" });
  const strip = element("div", { class: "steps", role: "group", "aria-label": "Steps; press one to see it large" });
  const chart = element("figure", { class: "frame per-step" });
  const caption = element("p", { class: "caption" });
  const controls = element("div", { class: "controls" });
  const adjust = element("div", { class: "adjust" });
  const play = element("button", { type: "button", class: "play", onclick: toggle }, "Play");
  const totals = element("figure", {}, total, totalName, bar, ends);
  const whole = element("figure", { class: "whole" }, plainImage, element("figcaption", {}, "The image"));
  reveal(
    "maps",
    controls,
    element("div", { class: "map" }, element("figure", {}, step, stepName), totals, whole),
    adjust,
    strip,
    chart,
    caption,
  );

  const paintStyle = () => (view.kind === "ran" ? "pale" : "heat");

  /** Show another kind, cell or prompt. */
  async function load() {
    const each = data.maps[view.kind][view.cell];
    record = each[chosen.prompt] || null;
    const source = record && data.images[view.cell][chosen.prompt];
    const wanted = [view.kind, view.cell, chosen.prompt].join();
    whole.hidden = totals.hidden = step.hidden = strip.hidden = chart.hidden = adjust.hidden = !source;
    if (!source) {
      stop();
      stepName.textContent = "";
      caption.textContent = "Not kept for this prompt: choose another.";
      return;
    }
    const [levels, loaded] = await Promise.all([inflated(record.levels), pixels(source)]);
    if (wanted !== [view.kind, view.cell, chosen.prompt].join()) return; // the selection changed meanwhile
    image = loaded;
    resize();
    plainImage.src = source;
    const n = record.rows * record.columns;
    frames = Array.from({ length: record.steps }, (_, i) => levels.subarray(i * n, (i + 1) * n));
    view.step = Math.min(view.step ?? frames.findIndex(uneven), frames.length - 1);
    caption.textContent = KINDS[view.kind].note;
    range();
    overall();
    steps();
    curve();
    show(view.step);
  }

  /** Give the large maps the shape of the current image. */
  function resize() {
    const { width, height } = image;
    const long = Math.max(width, height);
    const scale = long > 384 ? 384 / long : Math.round(384 / long); // canvas pixels per image pixel
    for (const map of [step, total]) Object.assign(map, { width: Math.round(width * scale), height: Math.round(height * scale) });
    Object.assign(plainImage, { width, height });
  }

  /** True for a step to start at: one in which tokens differ, or the last. */
  function uneven(levels, i) {
    return i === frames.length - 1 || levels.some((level) => level !== levels[0]);
  }

  function range() {
    const position = (i) => `${i + 1} of ${frames.length}`;
    const limits = { min: 0, max: frames.length - 1, value: view.step };
    adjust.replaceChildren(play, slider("Step", limits, position, (i) => show(i)));
  }

  function overall() {
    const mean = frames[0].map((_, token) => sum(frames.map((frame) => frame[token])) / frames.length);
    paint(total, mean, record, image, "heat");
    const context = bar.getContext("2d");
    for (let x = 0; x < 256; x++) {
      context.fillStyle = `rgb(${heat(x / 255).map(Math.round).join(" ")})`;
      context.fillRect(x, 0, 1, 1);
    }
    const [low, high] = view.kind === "ran" ? ["never", "every step"] : ["0", `${record.top.toPrecision(2)} and more`];
    ends.replaceChildren(element("span", {}, low), element("span", {}, high));
    totalName.textContent = "All steps";
  }

  function share(i) {
    const value = record.curve[i];
    return value === null ? "–" : KINDS[view.kind].format(value);
  }

  /** Plot the per-step curve, with the current step marked. */
  function curve() {
    const width = Math.min(chart.clientWidth || 600, 684);
    const [height, left, bottom] = [120, 40, 22];
    const known = record.curve.filter((value) => value !== null);
    const [low, high] = [Math.min(0, ...known), Math.max(view.kind === "error" ? 0 : 1, ...known)];
    const x = (i) => left + 6 + (i / Math.max(1, record.steps - 1)) * (width - left - 16);
    const y = (value) => height - bottom - ((value - low) / (high - low || 1)) * (height - bottom - 12);
    const picture = svgElement("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
    picture.setAttribute("aria-label", `${KINDS[view.kind].curve}: ${record.curve.map((_, i) => share(i)).join(", ")}`);
    for (const value of ticks(low, high, 3)) {
      picture.append(svgElement("line", { x1: left, x2: width, y1: y(value), y2: y(value), class: "grid" }));
      picture.append(svgElement("text", { x: left - 6, y: y(value) + 4, class: "tick end" }, plain(value)));
    }
    for (let i = 0; i < record.steps; i += Math.ceil(record.steps / 12)) {
      picture.append(svgElement("text", { x: x(i), y: height - 4, class: "tick middle" }, `${i + 1}`));
    }
    picture.append(svgElement("line", { class: "cursor", y1: 6, y2: height - bottom }));
    let path = "";
    record.curve.forEach((value, i) => {
      if (value !== null) path += `${record.curve[i - 1] === undefined || record.curve[i - 1] === null ? "M" : "L"}${x(i)},${y(value)}`;
    });
    picture.append(svgElement("path", { d: path, class: "curve" }));
    chart.replaceChildren(element("figcaption", {}, `${KINDS[view.kind].curve}, step by step`), picture);
    chart.at = x;
  }

  function steps() {
    const small = frames.map((levels, i) => {
      const { width, height } = image;
      const thumb = element("canvas", { width: Math.min(96, width), height: Math.min(96, (96 * height) / width), "aria-hidden": "true" });
      paint(thumb, levels, record, image, paintStyle());
      const name = `Step ${i + 1}: ${share(i)}`;
      const press = () => {
        stop();
        slide(i);
      };
      const label = element("span", {}, `${i + 1}`, element("small", {}, share(i)));
      return element("button", { type: "button", "aria-label": name, title: name, onclick: press }, thumb, label);
    });
    strip.replaceChildren(...small);
  }

  function slide(i) {
    const input = adjust.querySelector("input");
    input.value = i;
    input.dispatchEvent(new Event("input"));
  }

  function show(i) {
    view.step = i;
    paint(step, frames[i], record, image, paintStyle());
    const noise = record.sigma ? `noise level ${record.sigma[i].toFixed(2)}, ` : "";
    stepName.textContent = `Step ${i + 1}: ${noise}${KINDS[view.kind].curve.toLowerCase()} ${share(i)}`;
    for (const end of ["x1", "x2"]) chart.querySelector(".cursor").setAttribute(end, chart.at(i));
    [...strip.children].forEach((button, at) => button.setAttribute("aria-current", at === i ? "step" : "false"));
  }

  function toggle() {
    if (view.playing) return stop();
    play.textContent = "Pause";
    view.playing = setInterval(() => slide((view.step + 1) % frames.length), 350);
  }

  function stop() {
    clearInterval(view.playing);
    view.playing = null;
    play.textContent = "Play";
  }

  function choices() {
    const there = data.cells.filter((cell) => cell.id in data.maps[view.kind]);
    if (!there.some((cell) => cell.id === view.cell)) {
      const first = there.find((cell) => cell.id === chosen.right) || there[there.length - 1];
      view.cell = first.id;
    }
    const kinds = Object.keys(data.maps).map((kind) => [kind, KINDS[kind].name]);
    const cellList = selection("Cell", there.map((c) => [c.id, c.label]), view.cell, (cell) => ((view.cell = cell), load()));
    const prompts = data.samples.map((sample, i) => [i, `${i + 1}. ${sample.prompt}`]);
    const promptList = selection("Prompt", prompts, chosen.prompt, (value) => choose({ prompt: +value }));
    const kindList = segments("Map", kinds, view.kind, (kind) => {
      view.kind = kind;
      choices();
      controls.querySelector("input:checked").focus();
      load();
    });
    controls.replaceChildren(...(kinds.length > 1 ? [kindList] : []), cellList, promptList);
    controls.prompts = promptList.querySelector("select");
  }

  choices();
  onChange(["prompt"], () => {
    controls.prompts.value = chosen.prompt;
    load();
  });
  darkness.addEventListener("change", load);
})();
