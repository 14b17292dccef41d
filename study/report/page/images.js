// Compares two cells' images of one prompt (slider, side by side, difference), with a strip of all cells.

(() => {
  if (!withImages.length) {
    reveal("images", element("p", {}, "No image was made."));
    return;
  }
  const view = { kind: "slider", split: 50, factor: 4 };
  const stage = element("div", { class: "stage" });
  const adjust = element("div", { class: "adjust" });
  const caption = element("p", { class: "caption", role: "status" });
  const strip = element("div", { class: "strip", role: "group", "aria-label": "All cells; press one to set it on the right" });
  const prompt = element("blockquote", { class: "prompt", dir: "auto", tabindex: 0, "aria-label": "Prompt" });
  const options = withImages.map((cell) => [cell.id, cell.label]);
  const prompts = data.samples.map((sample, i) => [i, `${i + 1}. ${sample.prompt}`]);
  const lists = {
    prompt: selection("Prompt", prompts, chosen.prompt, (value) => choose({ prompt: +value })),
    left: selection("Left", options, chosen.left, (left) => choose({ left })),
    right: selection("Right", options, chosen.right, (right) => choose({ right })),
  };
  const kinds = [["slider", "Slider"], ["pair", "Side by side"], ["difference", "Difference"]];

  reveal(
    "images",
    element("div", { class: "controls" }, lists.prompt, lists.left, lists.right),
    element("div", { class: "controls" }, segments("View", kinds, view.kind, (kind) => ((view.kind = kind), draw()))),
    prompt,
    element(
      "div",
      { class: "viewer" },
      element("div", {}, stage, adjust, caption),
      element("div", {}, element("h3", {}, "All cells, this prompt"), strip),
    ),
    element("p", { class: "caption" }, data.scope),
  );

  const source = (id) => data.images[id][chosen.prompt];
  const label = (id) => cells.get(id).label;

  function picture(id) {
    const uri = source(id);
    if (!uri) return element("div", { class: "absent" }, `${label(id)}: not made`);
    const [width, height] = data.sizes[id];
    return element("img", { src: uri, alt: `${label(id)}, this prompt`, draggable: "false", width, height });
  }

  const VIEWS = {
    slider() {
      const over = element("div", { class: "over" }, picture(chosen.right));
      const box = element("div", { class: "overlaid" }, picture(chosen.left), over, element("div", { class: "divide" }));
      const move = (split) => {
        view.split = split;
        over.style.clipPath = `inset(0 0 0 ${split}%)`;
        box.lastChild.style.left = `${split}%`;
      };
      const range = slider("Divide", { min: 0, max: 100, value: view.split }, (x) => `${x} %`, move);
      const drag = (event) => {
        if (event.type === "pointermove" && !event.buttons) return;
        const { left, width: wide } = box.getBoundingClientRect();
        const input = range.querySelector("input");
        input.value = Math.round((100 * (event.clientX - left)) / wide);
        input.dispatchEvent(new Event("input"));
      };
      box.addEventListener("pointerdown", drag);
      box.addEventListener("pointermove", drag);
      move(view.split);
      stage.replaceChildren(named(chosen.left, "left"), box, named(chosen.right, "right"));
      adjust.replaceChildren(range);
    },
    pair() {
      const both = [chosen.left, chosen.right].map((id) =>
        element("figure", {}, picture(id), element("figcaption", {}, label(id))),
      );
      stage.replaceChildren(...both);
      adjust.replaceChildren();
    },
    difference() {
      const [width, height] = data.sizes[chosen.right];
      const canvas = element("canvas", { width, height, role: "img", "aria-label": "Difference of the two images" });
      stage.replaceChildren(canvas);
      const change = (factor) => ((view.factor = factor), subtract(canvas));
      adjust.replaceChildren(
        slider("Gain", { min: 1, max: 16, value: view.factor }, (x) => `× ${x}`, change),
      );
      subtract(canvas);
    },
  };

  function named(id, side) {
    return element("span", { class: `side ${side}` }, side === "left" ? `← ${label(id)}` : `${label(id)} →`);
  }

  /** Draw |right - left| per channel, times the gain. */
  async function subtract(canvas) {
    if (!source(chosen.left) || !source(chosen.right)) {
      caption.textContent = "One of the two was not made.";
      return;
    }
    const [left, right] = await Promise.all([source(chosen.left), source(chosen.right)].map(pixels));
    let total = 0;
    let most = 0;
    for (let i = 0; i < left.data.length; i++) {
      if (i % 4 === 3) continue; // alpha
      const difference = Math.abs(left.data[i] - right.data[i]);
      total += difference;
      most = Math.max(most, difference);
      right.data[i] = Math.min(255, difference * view.factor);
    }
    canvas.getContext("2d").putImageData(right, 0, 0);
    const mean = total / (left.width * left.height * 3);
    caption.textContent =
      `${label(chosen.right)} minus ${label(chosen.left)}, absolute, per channel, times ${view.factor}: black is ` +
      `equal. Before that gain ${mean.toFixed(2)} of 255 on average, ${most} at most.`;
  }

  function nearness(id) {
    const near = Object.entries(cells.get(id).near).map(([name, values]) => [name, values[chosen.prompt]]);
    const known = near.filter(([, value]) => value !== null && value !== undefined);
    return known.map(([name, value]) => `${name} ${value}`).join(", ");
  }

  function draw() {
    const alike = `${data.sizes[chosen.left]}` === `${data.sizes[chosen.right]}`;
    const kind = alike ? view.kind : "pair"; // images of different sizes cannot be laid over each other
    VIEWS[kind]();
    stage.className = `stage ${kind}`;
    const near = nearness(chosen.right);
    const said = alike ? [] : ["These two are of different sizes, so they are shown side by side."];
    if (near) said.push(`${label(chosen.right)}, this image against dense: ${near}.`);
    if (kind !== "difference") caption.textContent = said.join(" ");
    const { prompt: text, seed } = data.samples[chosen.prompt];
    prompt.replaceChildren(element("p", {}, text || "(empty prompt)"), element("footer", {}, `seed ${seed}`));
    for (const [name, list] of Object.entries(lists)) list.querySelector("select").value = chosen[name];
    for (const button of strip.children) {
      const id = button.dataset.cell;
      button.setAttribute("aria-pressed", id === chosen.right);
      button.firstChild.replaceWith(picture(id));
    }
  }

  strip.append(
    ...withImages.map((cell) =>
      element(
        "button",
        { type: "button", class: cell.role, "data-cell": cell.id, onclick: () => choose({ right: cell.id }) },
        element("span"),
        element("span", { class: "name" }, cell.label),
      ),
    ),
  );
  onChange(["prompt", "left", "right"], draw);
})();
