// Maps over the image, step by step: which tokens ran; where traces were kept, scores and distance to dense.

(() => {
  if (!document.getElementById("maps-live")) return;
  const KINDS = {
    ran: ["Tokens that ran", "Left out is pale. On the right the share of the steps that each token ran."],
    error: [
      "Distance to dense",
      "Distance of the image that the state points to from the dense run’s at the same noise level, relative to " +
        "the dense image. On the right the mean over the steps.",
    ],
    score: ["Score", "What tokens are chosen by, per token. On the right the mean over the steps."],
  };
  const VIRIDIS = [
    [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
    [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
  ];
  const view = { kind: Object.keys(data.maps)[0], cell: null, step: null, playing: null };
  const { width, height } = data.scope;
  const scale = Math.max(1, Math.round(320 / Math.max(width, height))); // canvas pixels per stored one
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const unpacked = new Map();
  let frames = []; // of the map in view: one Uint8Array per step
  let now = null; // its record
  let image = null; // its pixels

  const canvas = (name) =>
    element("canvas", { width: width * scale, height: height * scale, role: "img", "aria-label": name });
  const [step, total] = [canvas("This step"), canvas("All steps")];
  const plainImage = element("img", { width, height, alt: "The image" });
  const stepName = element("figcaption");
  const totalName = element("figcaption");
  const bar = element("canvas", { class: "bar", width: 256, height: 1, "aria-hidden": "true" });
  const ends = element("div", { class: "ends" });
  const strip = element("div", { class: "steps", role: "group", "aria-label": "Steps; press one to see it large" });
  const caption = element("p", { class: "caption" });
  const controls = element("div", { class: "controls" });
  const adjust = element("div", { class: "adjust" });
  const play = element("button", { type: "button", class: "play", onclick: toggle }, "Play");
  const totals = element("figure", {}, total, totalName, bar, ends);
  const whole = element("figure", { class: "whole" }, plainImage, element("figcaption", {}, "The image"));
  live(
    "maps",
    controls,
    element("div", { class: "map" }, element("figure", {}, step, stepName), totals, whole),
    adjust,
    strip,
    caption,
  );

  async function inflated(text) {
    if (!unpacked.has(text)) {
      const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
      unpacked.set(text, new Uint8Array(await new Response(stream).arrayBuffer()));
    }
    return unpacked.get(text);
  }

  function heat(share) {
    const place = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
    const below = Math.min(VIRIDIS.length - 2, Math.floor(place));
    return VIRIDIS[below].map((x, i) => x + (place - below) * (VIRIDIS[below + 1][i] - x));
  }

  /** levels: 0 to 255, one per token. As in the figures: tokens left out are pale; other maps are heat. */
  function paint(context, levels, how) {
    const { width: w, height: h } = context.canvas;
    const made = context.createImageData(w, h);
    for (let y = 0; y < h; y++) {
      const row = Math.floor((y / h) * now.rows) * now.columns;
      const line = Math.floor((y / h) * height) * width;
      for (let x = 0; x < w; x++) {
        const share = levels[row + Math.floor((x / w) * now.columns)] / 255;
        const from = 4 * (line + Math.floor((x / w) * width));
        const to = 4 * (y * w + x);
        const grey = (image[from] + image[from + 1] + image[from + 2]) / 3;
        const colour = how === "pale" ? null : heat(share);
        const pale = dark.matches ? 26 + 0.1 * grey : 219 + 0.12 * grey;
        for (let i = 0; i < 3; i++) {
          const under = how === "pale" ? image[from + i] : 0.5 * 255 + 0.4 * (grey - 128);
          made.data[to + i] = how === "pale" ? share * under + (1 - share) * pale : 0.28 * under + 0.72 * colour[i];
        }
        made.data[to + 3] = 255;
      }
    }
    context.putImageData(made, 0, 0);
  }

  const manner = () => (view.kind === "ran" ? "pale" : "heat");

  async function pixels(uri) {
    const loaded = new Image();
    loaded.src = uri;
    await loaded.decode();
    const context = element("canvas", { width, height }).getContext("2d");
    context.drawImage(loaded, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  }

  /** Another kind, cell or prompt: its frames, the slider over them, the strip. */
  async function load() {
    const each = data.maps[view.kind][view.cell];
    now = each[chosen.prompt] || null;
    const there = now && data.images[view.cell][chosen.prompt];
    const wanted = [view.kind, view.cell, chosen.prompt].join();
    whole.hidden = totals.hidden = step.hidden = strip.hidden = adjust.hidden = !there;
    if (!there) {
      stop();
      stepName.textContent = "";
      caption.textContent = "Not kept for this prompt: choose another.";
      return;
    }
    const [levels, data_] = await Promise.all([inflated(now.levels), pixels(there)]);
    if (wanted !== [view.kind, view.cell, chosen.prompt].join()) return; // chosen anew meanwhile
    image = data_;
    plainImage.src = there;
    const n = now.rows * now.columns;
    frames = Array.from({ length: now.steps }, (_, i) => levels.subarray(i * n, (i + 1) * n));
    view.step = Math.min(view.step ?? frames.findIndex(uneven), frames.length - 1);
    caption.textContent = KINDS[view.kind][1];
    range();
    overall();
    steps();
    show(view.step);
  }

  /** The first step to look at: one in which tokens differ. */
  function uneven(levels, i) {
    return i === frames.length - 1 || levels.some((level) => level !== levels[0]);
  }

  function range() {
    const said = (i) => `${i + 1} of ${frames.length}`;
    const limits = { min: 0, max: frames.length - 1, value: view.step };
    adjust.replaceChildren(play, slider("Step", limits, said, (i) => show(i)));
  }

  function overall() {
    const mean = frames[0].map((_, token) => sum(frames.map((frame) => frame[token])) / frames.length);
    paint(total.getContext("2d"), mean, "heat");
    const context = bar.getContext("2d");
    for (let x = 0; x < 256; x++) {
      context.fillStyle = `rgb(${heat(x / 255).map(Math.round).join(" ")})`;
      context.fillRect(x, 0, 1, 1);
    }
    const [low, high] = view.kind === "ran" ? ["never", "every step"] : ["0", `${now.top.toPrecision(2)} and more`];
    ends.replaceChildren(element("span", {}, low), element("span", {}, high));
    totalName.textContent = "All steps";
  }

  function share(i) {
    const mean = sum(frames[i]) / frames[i].length / 255;
    return view.kind === "ran" ? `${Math.round(100 * mean)} %` : (mean * now.top).toPrecision(2);
  }

  function steps() {
    const small = frames.map((levels, i) => {
      const thumb = element("canvas", { width: Math.min(96, width), height: Math.min(96, (96 * height) / width), "aria-hidden": "true" });
      paint(thumb.getContext("2d"), levels, manner());
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
    paint(step.getContext("2d"), frames[i], manner());
    const what = { ran: "of the work of a full step", error: "on average", score: "on average" }[view.kind];
    stepName.textContent = `Step ${i + 1}: ${share(i)} ${what}`;
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
    const kinds = Object.keys(data.maps).map((kind) => [kind, KINDS[kind][0]]);
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
  heed(["prompt"], () => {
    controls.prompts.value = chosen.prompt;
    load();
  });
  dark.addEventListener("change", load);
})();
