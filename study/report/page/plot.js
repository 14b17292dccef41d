// Chooses which of matplotlib's plots is visible, and shows a card for the point under the pointer.

(() => {
  const drawings = [...document.querySelectorAll(".drawing")];
  if (!drawings.length) return;
  const COSTS = { time: "Time", flops: "FLOPs" };
  const titles = new Map(drawings.map(({ dataset }) => [dataset.score, dataset.title]));
  const costs = [...new Set(drawings.map(({ dataset }) => dataset.cost))];
  const view = { score: drawings[0].dataset.score, cost: costs[0], cell: data.best };
  const frame = element("div", { class: "frame" }, ...drawings);
  const card = element("div", { class: "card" });
  const pick = titles.size > 5 ? selection : segments;
  reveal(
    "plot",
    element(
      "div",
      { class: "controls" },
      pick("Quality", [...titles], view.score, (score) => change({ score })),
      costs.length > 1 ? segments("Cost", costs.map((cost) => [cost, COSTS[cost]]), view.cost, (cost) => change({ cost })) : null,
    ),
    element("div", { class: "plot-and-card" }, frame, card),
  );

  const points = () => [...frame.querySelectorAll(".drawing:not([hidden]) .point")];

  function change(chosen) {
    Object.assign(view, chosen);
    for (const drawing of drawings) {
      drawing.hidden = drawing.dataset.score !== view.score || drawing.dataset.cost !== view.cost;
    }
    if (!points().some(({ dataset }) => dataset.cell === view.cell)) view.cell = points()[0]?.dataset.cell;
    for (const point of points()) {
      const cell = cells.get(point.dataset.cell);
      const figures = texts(cell).map(([name, text]) => `${name} ${text}`).join(", ");
      point.setAttribute("role", "img");
      point.setAttribute("aria-label", `${cell.label}: ${figures}`);
    }
    show(view.cell);
  }

  function texts(cell) {
    return [1, 2, 3, ...(data.about[view.score] || [])].map((i) => [data.columns[i], cell.texts[i]]);
  }

  function show(id) {
    view.cell = id;
    for (const point of points()) {
      point.classList.toggle("current", point.dataset.cell === id);
      point.setAttribute("tabindex", point.dataset.cell === id ? 0 : -1);
    }
    if (cells.has(id)) card.replaceChildren(...described(cells.get(id)));
  }

  function described(cell) {
    const facts = texts(cell).filter(([, text]) => text !== "–");
    const sure = view.cost === data.cost && cell.front[view.score];
    if (typeof sure === "number") facts.push(["on the front", sure > 0.995 ? "> 99 % sure" : `${Math.round(100 * sure)} % sure`]);
    const list = element("dl", {});
    for (const [name, text] of facts) list.append(element("div", {}, element("dt", {}, name), element("dd", {}, text)));
    const pictures = [[denseOf(cell), "dense"], [cell.id, "this cell"]].map(([id, caption]) => {
      const source = (data.images[id] || [])[chosen.prompt];
      return source ? element("figure", {}, element("img", { src: source, alt: "" }), element("figcaption", {}, caption)) : null;
    });
    const there = pictures.some(Boolean) && cell.role !== "dense";
    return [
      element("h3", {}, cell.label),
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

  function middle(point) {
    const { left, top, width, height } = point.getBoundingClientRect();
    return [left + width / 2, top + height / 2];
  }

  /** Arrow keys: left and right by cost, up and down by quality. */
  frame.addEventListener("keydown", (event) => {
    const by = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [1, -1], ArrowDown: [1, 1] };
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      compareImages();
    }
    if (!(event.key in by) && event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    const [axis, sign] = by[event.key] || [0, 1];
    const order = points().sort((a, b) => middle(a)[axis] - middle(b)[axis]);
    const now = order.findIndex(({ dataset }) => dataset.cell === view.cell);
    const next = { Home: 0, End: order.length - 1 }[event.key] ?? Math.min(order.length - 1, Math.max(0, now + sign));
    order[next].focus();
  });
  frame.addEventListener("focusin", ({ target }) => target.dataset.cell && show(target.dataset.cell));
  for (const kind of ["pointermove", "pointerdown"]) {
    frame.addEventListener(kind, ({ clientX, clientY }) => {
      const away = points().map((point) => [Math.hypot(middle(point)[0] - clientX, middle(point)[1] - clientY), point]);
      const [least, nearest] = away.reduce((a, b) => (b[0] < a[0] ? b : a), [40, null]);
      if (nearest && least < 40) show(nearest.dataset.cell);
    });
  }

  change({});
  onChange(["prompt"], () => show(view.cell));
})();
