// Speedup against quality: every cell with its interval, the step-reduction curve, the Pareto front.

(() => {
  const AXES = { time: "times faster than dense", flops: "times fewer FLOPs than dense" };
  const MARGIN = { top: 14, right: 18, bottom: 42, left: 52 };
  const SHAPES = {
    o: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`,
    s: (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
    D: (r) => `M0,${-1.35 * r}L${1.35 * r},0L0,${1.35 * r}L${-1.35 * r},0z`,
    "^": (r) => `M0,${-1.25 * r}L${1.2 * r},${r}H${-1.2 * r}z`,
    v: (r) => `M0,${1.25 * r}L${1.2 * r},${-r}H${-1.2 * r}z`,
  };
  const metrics = data.metrics.filter((m) => data.cells.some((c) => Array.isArray(c.scores[m.name])));
  const series = data.series.map((one) => ({ ...one, class: one.colour < 0 ? "grey" : `colour-${one.colour}` }));
  const baseline = { name: "dense", class: "ink", marker: "D", joined: false };
  baseline.cells = data.cells.filter((cell) => cell.role === "dense").map((cell) => cell.id);
  const of = new Map([baseline, ...series].flatMap((one) => one.cells.map((id) => [id, one])));

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

  /** Of each baseline's cells those that no other is cheaper and better than, by their point estimates. */
  function fronts(all) {
    const groups = [...new Set(all.map(({ cell }) => cell.dense))];
    return groups.map((dense) => front(all.filter(({ cell }) => cell.dense === dense && !cell.failed)));
  }

  /** The cheapest first. */
  function front(order) {
    const sign = view.metric.better === "higher" ? 1 : -1;
    order.sort((a, b) => b.x[0] - a.x[0] || sign * (b.y[0] - a.y[0]));
    let best = -Infinity;
    return order.filter(({ y }) => sign * y[0] > best && ((best = sign * y[0]), true));
  }

  function scales(all, width, height) {
    const pad = (low, high) => [(low + high) / 2 - (high - low || 1) * 0.56, (low + high) / 2 + (high - low || 1) * 0.56];
    const xs = all.flatMap(({ x }) => [x[0], 1]);
    let [x0, x1] = pad(Math.min(...xs), Math.max(...xs));
    const ys = all.map(({ y }) => y[0]);
    const spread = Math.max(...ys) - Math.min(...ys) || Math.abs(ys[0]) * 0.1 || 1;
    // an interval far beyond all points is cut off rather than let flatten them
    const low = Math.min(...all.map(({ y }) => Math.max(y[1], Math.min(...ys) - spread / 2)));
    const high = Math.max(...all.map(({ y }) => Math.min(y[2], Math.max(...ys) + spread / 2)));
    const [y0, y1] = pad(low, high);
    const { top, right, bottom, left } = MARGIN;
    return {
      x: (v) => left + ((v - x0) / (x1 - x0)) * (width - left - right),
      y: (v) => height - bottom - ((v - y0) / (y1 - y0)) * (height - top - bottom),
      xs: ticks(x0, x1, width / 90),
      ys: ticks(y0, y1, height / 70),
    };
  }

  function axes(to, at, width, height) {
    const { top, right, bottom, left } = MARGIN;
    const line = (x1, y1, x2, y2, name) => drawn("line", { x1, y1, x2, y2, class: name });
    const text = (x, y, name, said) => drawn("text", { x, y, class: name }, said);
    for (const v of at.ys) {
      to.append(line(left, at.y(v), width - right, at.y(v), "grid"), text(left - 8, at.y(v) + 4, "tick end", plain(v)));
    }
    for (const v of at.xs) {
      to.append(line(at.x(v), top, at.x(v), height - bottom, "grid"));
      to.append(text(at.x(v), height - bottom + 18, "tick middle", `${plain(v)}×`));
    }
    to.append(line(left, height - bottom, width - right, height - bottom, "axis"));
    to.append(text(width - right, height - 6, "axis-name end", `${AXES[view.axis]} →`));
    const arrow = view.metric.better === "higher" ? "↑" : "↓";
    to.append(text(left + 6, top + 2, "axis-name", `${arrow} ${view.metric.title}`));
  }

  function curve(one, all, at) {
    const places = one.cells.map((id) => all.find(({ cell }) => cell.id === id)).filter(Boolean);
    const path = places.map(({ x, y }) => `${at.x(x[0])},${at.y(y[0])}`).join("L");
    return drawn("path", { d: path && `M${path}`, class: `curve ${one.class}`, "data-series": one.name });
  }

  /** A staircase: what is better than the cell on it is dearer. */
  function stairs(ends, at) {
    let path = "";
    ends.forEach(({ x, y }, i) => {
      path += i ? `V${at.y(y[0])}H${at.x(x[0])}` : `M${at.x(x[0])},${at.y(y[0])}`;
    });
    return drawn("path", { d: path, class: "front" });
  }

  function whiskers({ x, y }, at) {
    const flat = view.axis === "time" ? `M${at.x(x[1])},${at.y(y[0])}H${at.x(x[2])}` : "";
    return drawn("path", { d: `${flat}M${at.x(x[0])},${at.y(y[1])}V${at.y(y[2])}`, class: "whisker" });
  }

  function point(place, at, share) {
    const { cell, x, y } = place;
    const one = of.get(cell.id) || baseline;
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
      whiskers(place, at),
    );
    const mark = { transform: `translate(${at.x(x[0])},${at.y(y[0])})` };
    group.append(drawn("path", { ...mark, d: shape(8), class: "halo" }));
    group.append(drawn("path", { ...mark, d: shape(4.6), class: "mark ground" }));
    group.append(drawn("path", { ...mark, d: shape(4.6), class: "mark", "fill-opacity": share }));
    return group;
  }

  /** What tells points of one curve apart, where there is room for it. */
  function marks(one, all, at, taken) {
    const below = (one.class === "grey") === (view.metric.better === "higher");
    return one.cells.flatMap((id) => {
      const place = all.find(({ cell }) => cell.id === id);
      if (!place || !place.cell.mark) return [];
      const size = 6.2 * place.cell.mark.length;
      const left = at.x(place.x[0]) + (one.class === "grey" ? -8 - size : 8);
      const top = at.y(place.y[0]) + (below ? 15 : -8);
      const box = [left - 2, top - 11, left + size + 2, top + 2];
      if (taken.some(([a, b, c, d]) => box[0] < c && a < box[2] && box[1] < d && b < box[3])) return [];
      taken.push(box);
      return [drawn("text", { x: left, y: top, class: `value ${one.class}`, "data-series": one.name }, place.cell.mark)];
    });
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
    const at = scales(all, width, height);
    const ends = fronts(all);
    if (!all.some(({ cell }) => cell.id === view.cell)) view.cell = all.length ? all[0].cell.id : null;
    const label = `${view.metric.title} against ${AXES[view.axis]}; arrow keys go from point to point`;
    const picture = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
    const inside = { x: MARGIN.left, y: 0, width: width - MARGIN.left - MARGIN.right + 14, height: height - MARGIN.bottom };
    picture.append(drawn("clipPath", { id: "inside" }, drawn("rect", inside)));
    axes(picture, at, width, height);
    const marked = drawn("g", { "clip-path": "url(#inside)" }, ...ends.map((one) => stairs(one, at)));
    const joined = series.filter((one) => one.joined);
    marked.append(...joined.map((one) => curve(one, all, at)));
    const sure = ({ cell }) => (view.axis === data.cost ? cell.front[view.metric.name] : undefined);
    const share = (place) => sure(place) ?? (ends.flat().includes(place) ? 1 : 0);
    marked.append(...all.map((place) => point(place, at, share(place))));
    const taken = all.map(({ x, y }) => [at.x(x[0]) - 5, at.y(y[0]) - 5, at.x(x[0]) + 5, at.y(y[0]) + 5]);
    marked.append(...joined.flatMap((one) => marks(one, all, at, taken)));
    picture.append(marked);
    picture.addEventListener("keydown", (event) => step(event, all));
    for (const kind of ["pointermove", "pointerdown"]) {
      picture.addEventListener(kind, (event) => nearest(event, all, at));
    }
    frame.replaceChildren(picture);
    explain(all);
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
    const one = of.get(cell.id) || baseline;
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

  function swatch(one) {
    const shape = drawn("path", { d: (SHAPES[one.marker] || SHAPES.o)(4.2), transform: "translate(7,7)", class: "mark" });
    const stroke = one.joined ? drawn("path", { d: "M0,7H14", class: "curve" }) : null;
    return drawn("svg", { class: `swatch ${one.class}`, width: 14, height: 14, "aria-hidden": "true" }, stroke, shape);
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

  function explain(all) {
    const outside = data.cells.filter((cell) => cell.scores[view.metric.name] === "∞");
    const said = [
      "Whiskers: 95 %, of the difference to the dense images for scores that have one of their own.",
      view.axis === data.cost
        ? "The fuller a point, the surer it is on the Pareto front; the stairs are the front of the point estimates."
        : "Full points are on the Pareto front of the point estimates, the stairs.",
    ];
    if (outside.length) {
      said.push(`Every image is the dense one, and ${view.metric.title} infinite: ${outside.map((c) => c.label).join(", ")}.`);
    }
    caption.textContent = said.join(" ");
  }

  fitted(frame, () => draw());
  heed(["prompt"], () => view.cell && frame.firstChild && show(view.cell));
})();
