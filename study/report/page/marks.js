// What a plot of cells is made of. A place is {cell, x, y}, x and y being [value, low, high]; `at` gives pixels.

const marks = (() => {
  const MARGIN = { top: 14, right: 18, bottom: 42, left: 52 };

  function scales(all, { width, height }) {
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
      cut: all.some(({ y }) => y[1] < y0 || y[2] > y1),
    };
  }

  function axes(to, at, { width, height }, across, up) {
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
    to.append(text(width - right, height - 6, "axis-name end", `${across} →`));
    to.append(text(left + 6, top + 2, "axis-name", up));
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
    const flat = x[1] < x[2] ? `M${at.x(x[1])},${at.y(y[0])}H${at.x(x[2])}` : "";
    return drawn("path", { d: `${flat}M${at.x(x[0])},${at.y(y[1])}V${at.y(y[2])}`, class: "whisker" });
  }

  /** What tells points of one curve apart, where there is room for it. */
  function values(one, all, at, taken, better) {
    const below = (one.class === "grey") === (better === "higher");
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

  /** Of each baseline's cells those that no other is cheaper and better than, by their point estimates. */
  function fronts(all, better) {
    const groups = [...new Set(all.map(({ cell }) => cell.dense))];
    return groups.map((dense) => front(better, all.filter(({ cell }) => cell.dense === dense && !cell.failed)));
  }

  /** The cheapest first. */
  function front(better, order) {
    const sign = better === "higher" ? 1 : -1;
    order.sort((a, b) => b.x[0] - a.x[0] || sign * (b.y[0] - a.y[0]));
    let best = -Infinity;
    return order.filter(({ y }) => sign * y[0] > best && ((best = sign * y[0]), true));
  }

  return { MARGIN, scales, axes, curve, stairs, whiskers, values, fronts };
})();
