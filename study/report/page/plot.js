// Speedup against quality: every cell with its interval, the step-reduction curve, the Pareto front.

(() => {
  const AXES = { time: "times faster than dense", flops: "times fewer FLOPs than dense" };
  const metrics = data.metrics.filter((m) => data.cells.some((c) => Array.isArray(c.scores[m.name])));
  if (!metrics.length) {
    const why = "No score has a number in this study, so there is nothing to set the speed against.";
    live("plot", element("p", {}, why));
    return;
  }

  const view = { metric: metrics[0], axis: data.cost, cell: data.best, lit: null };
  const frame = element("div", { class: "frame" });
  const card = element("div", { class: "card" });
  const legend = element("ul", { class: "legend", "aria-label": "Legend: press one to see it alone" });
  const caption = element("p", { class: "caption" });
  const named = metrics.map((m) => [m.name, m.title]);
  const pick = (name) => draw({ metric: metrics.find((m) => m.name === name) });
  live(
    "plot",
    element(
      "div",
      { class: "controls" },
      named.length > 5
        ? selection("Quality", named, view.metric.name, pick)
        : segments("Quality", named, view.metric.name, pick),
      segments("Cost", [["time", "Time"], ["flops", "FLOPs"]], view.axis, (axis) => draw({ axis })),
    ),
    element("div", { class: "plot-and-card" }, frame, card),
    legend,
    caption,
  );

  /** Cells that have a place: [x, low, high] and [y, low, high]. */
  function points() {
    return data.cells
      .map((cell) => ({ cell, x: cell[view.axis], y: cell.scores[view.metric.name] }))
      .filter(({ x, y }) => Array.isArray(x) && Array.isArray(y));
  }

  function point(place, at, share) {
    const { cell, x, y } = place;
    const one = seriesOf.get(cell.id) || baseline;
    const shape = SHAPES[one.marker] || SHAPES.o;
    const group = drawn(
      "g",
      {
        class: `point ${one.class}`,
        role: "img",
        tabindex: cell.id === view.cell ? 0 : -1,
        "aria-label": spoken(cell),
        "data-cell": cell.id,
        "data-series": one.name,
        onfocus: () => show(cell.id),
      },
      marks.whiskers(place, at),
    );
    const mark = { transform: `translate(${at.x(x[0])},${at.y(y[0])})` };
    group.append(drawn("path", { ...mark, d: shape(8), class: "halo" }));
    group.append(drawn("path", { ...mark, d: shape(4.6), class: "mark ground" }));
    group.append(drawn("path", { ...mark, d: shape(4.6), class: "mark", "fill-opacity": share }));
    return group;
  }

  function texts(cell) {
    const columns = [1, 2, 3, ...view.metric.columns];
    return columns.map((i) => [data.columns[i], cell.texts[i]]);
  }
  function spoken(cell) {
    return `${cell.label}: ${texts(cell).map(([name, text]) => `${name} ${text}`).join(", ")}`;
  }

  function draw(change = {}) {
    Object.assign(view, change);
    const width = frame.clientWidth;
    if (!width) return;
    const height = Math.round(Math.min(500, Math.max(320, width * 0.62)));
    const all = points();
    const size = { width, height };
    const at = marks.scales(all, size);
    const { better, title } = view.metric;
    const ends = marks.fronts(all, better);
    if (!all.some(({ cell }) => cell.id === view.cell)) view.cell = all.length ? all[0].cell.id : null;
    const label = `${title} against ${AXES[view.axis]}; arrow keys go from point to point`;
    const picture = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
    const inside = { x: marks.MARGIN.left, y: 0, width: width - marks.MARGIN.left - marks.MARGIN.right + 14, height: height - marks.MARGIN.bottom };
    picture.append(drawn("clipPath", { id: "inside" }, drawn("rect", inside)));
    marks.axes(picture, at, size, AXES[view.axis], `${better === "higher" ? "↑" : "↓"} ${title}`);
    const layer = drawn("g", { "clip-path": "url(#inside)" }, ...ends.map((one) => marks.stairs(one, at)));
    const joined = series.filter((one) => one.joined);
    layer.append(...joined.map((one) => marks.curve(one, all, at)));
    const sure = ({ cell }) => (view.axis === data.cost ? cell.front[view.metric.name] : undefined);
    const share = (place) => sure(place) ?? (ends.flat().includes(place) ? 1 : 0);
    layer.append(...all.map((place) => point(place, at, share(place))));
    const taken = all.map(({ x, y }) => [at.x(x[0]) - 5, at.y(y[0]) - 5, at.x(x[0]) + 5, at.y(y[0]) + 5]);
    layer.append(...joined.flatMap((one) => marks.values(one, all, at, taken, better)));
    picture.append(layer);
    picture.addEventListener("keydown", (event) => step(event, all));
    for (const kind of ["pointermove", "pointerdown"]) {
      picture.addEventListener(kind, (event) => nearest(event, all, at));
    }
    frame.replaceChildren(picture);
    explain(at.cut);
    key();
    show(view.cell);
  }

  /** Right and left by cost, up and down by quality. */
  function step(event, all) {
    const by = { ArrowRight: ["x", 1], ArrowLeft: ["x", -1], ArrowUp: ["y", 1], ArrowDown: ["y", -1] };
    const ends = { Home: 0, End: all.length - 1 };
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      compareImages();
      return;
    }
    const [axis, sign] = by[event.key] || ["x", 1];
    if (!(event.key in by) && !(event.key in ends)) return;
    event.preventDefault();
    const order = [...all].sort((a, b) => a[axis][0] - b[axis][0]);
    const now = order.findIndex(({ cell }) => cell.id === view.cell);
    const next = event.key in ends ? ends[event.key] : Math.min(all.length - 1, Math.max(0, now + sign));
    frame.querySelector(`[data-cell="${order[next].cell.id}"]`).focus();
  }

  function nearest(event, all, at) {
    const box = frame.firstChild.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    const away = all.map((place) => Math.hypot(at.x(place.x[0]) - px, at.y(place.y[0]) - py));
    const least = Math.min(...away);
    if (least < 40) show(all[away.indexOf(least)].cell.id);
  }

  function show(id) {
    view.cell = id;
    for (const group of frame.querySelectorAll(".point")) {
      const current = group.dataset.cell === id;
      group.classList.toggle("current", current);
      group.setAttribute("tabindex", current ? 0 : -1);
    }
    const cell = cells.get(id);
    if (cell) card.replaceChildren(...described(cell));
  }

  function described(cell) {
    const one = seriesOf.get(cell.id) || baseline;
    const sure = view.axis === data.cost && cell.front[view.metric.name];
    const facts = texts(cell).filter(([, text]) => text !== "–");
    if (typeof sure === "number") facts.push(["on the front", sure > 0.995 ? "> 99 % sure" : `${Math.round(100 * sure)} % sure`]);
    facts.push(["images", `${cell.n}`]);
    const list = element("dl", {});
    for (const [name, text] of facts) list.append(element("div", {}, element("dt", {}, name), element("dd", {}, text)));
    const pictures = [[denseOf(cell), "dense"], [cell.id, "this cell"]].map(([whose, said]) => {
      const source = (data.images[whose] || [])[chosen.prompt];
      return source ? element("figure", {}, element("img", { src: source, alt: "" }), element("figcaption", {}, said)) : null;
    });
    const there = pictures.some(Boolean) && cell.role !== "dense";
    return [
      element("h3", { class: one.class }, swatch(one), cell.label),
      list,
      there ? element("div", { class: "pair" }, ...pictures) : null,
      there ? element("button", { type: "button", onclick: compareImages }, "Compare its images") : null,
    ].filter(Boolean);
  }

  function compareImages() {
    if (!(data.images[view.cell] || []).some(Boolean)) return;
    choose({ right: view.cell });
    document.getElementById("images").scrollIntoView({ block: "start" });
  }

  function key() {
    const entry = (one) => {
      const press = () => {
        view.lit = view.lit === one.name ? null : one.name;
        light();
      };
      return element("li", {}, element("button", { type: "button", "data-series": one.name, onclick: press }, swatch(one), one.name));
    };
    if (!legend.children.length) legend.append(...[baseline, ...series].map(entry));
    light();
  }

  function light() {
    frame.classList.toggle("dimmed", view.lit !== null);
    for (const part of frame.querySelectorAll("[data-series]")) {
      part.classList.toggle("lit", part.dataset.series === view.lit);
    }
    for (const button of legend.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", button.dataset.series === view.lit);
    }
  }

  function explain(cut) {
    const outside = data.cells.filter((cell) => cell.scores[view.metric.name] === "∞");
    const said = [
      "Whiskers: 95 %, of the difference to the dense images for scores that have one of their own.",
      view.axis === data.cost
        ? "The fuller a point, the surer it is on the Pareto front; the stairs are the front of the point estimates."
        : "Full points are on the Pareto front of the point estimates, the stairs.",
    ];
    if (cut) said.push("A whisker that leaves the plot goes on beyond it.");
    if (outside.length) {
      said.push(`Every image is the dense one, and ${view.metric.title} infinite: ${outside.map((c) => c.label).join(", ")}.`);
    }
    caption.textContent = said.join(" ");
  }

  fitted(frame, () => draw());
  heed(["prompt"], () => view.cell && frame.firstChild && show(view.cell));
})();
