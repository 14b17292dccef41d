// Every timed repetition as a dot, the median and its interval as a line: one row per cell.

(() => {
  const timed = data.cells.filter((cell) => cell.repetitions.length);
  if (!timed.length) {
    live("latency", element("p", {}, "Nothing was timed."));
    return;
  }
  const MOST = 300; // dots of a cell: more are a blot, and slow
  const stride = Math.ceil(Math.max(...timed.map((cell) => cell.repetitions.length)) / MOST);
  const frame = element("div", { class: "frame" });
  const flagged = new Set(timed.flatMap((cell) => cell.repetitions.map(([, mark]) => mark)).filter(Boolean));
  const explained = {
    throttled: "crosses: held down by heat or hardware, left out of the median",
    shared: "hollow: the device was shared with others’ work",
  };
  const which = stride > 1 ? `one full batch in ${stride}, and of every one with a mark` : "every full batch";
  const said = [`Seconds per image of ${which}; the line is the median, the band its interval.`];
  for (const [mark, text] of Object.entries(explained)) if (flagged.has(mark)) said.push(`${text}.`);
  live("latency", frame, element("p", { class: "caption" }, said.join(" ").replace(/\. (\w)/g, (_, c) => `. ${c.toUpperCase()}`)));

  /** Where there is no room beside the dots, names stand above them. */
  function strip(cell, i, { x, left, row, above }) {
    const y = (i + 0.5) * row + 8 + (above ? 9 : 0);
    const { seconds, repetitions, role, label } = cell;
    const values = repetitions.map(([s]) => s.toPrecision(3)).join(", ");
    const group = drawn("g", { class: `row ${role}`, role: "img", "aria-label": `${label}: ${values} s per image` });
    group.append(drawn("title", {}, `${label}\n${cell.texts[1]} s per image`));
    group.append(
      above
        ? drawn("text", { x: left, y: y - 14, class: "name above" }, shortened(label, 44))
        : drawn("text", { x: left - 12, y: y + 4, class: "name" }, shortened(label, Math.floor(left / 7.2))),
    );
    if (seconds) {
      const [median, low, high] = seconds.map(x);
      group.append(drawn("rect", { x: low, y: y - 6, width: Math.max(high - low, 1), height: 12, class: "interval" }));
      group.append(drawn("line", { x1: median, x2: median, y1: y - 9, y2: y + 9, class: "median" }));
    }
    repetitions.forEach(([s, mark], k) => {
      if (k % stride && !mark) return;
      const at = [x(s), y + (((k * 7 + 2) % 5) - 2) * 1.8]; // a little apart, the same every time
      group.append(
        mark === "throttled"
          ? drawn("path", { d: `M${at[0] - 3},${at[1] - 3}l6,6m0,-6l-6,6`, class: "repetition throttled" })
          : drawn("circle", { cx: at[0], cy: at[1], r: 2.8, class: `repetition ${mark}` }),
      );
    });
    return group;
  }

  function draw(width) {
    const longest = Math.max(...timed.map((cell) => cell.label.length));
    const above = width < 560;
    const left = above ? 6 : Math.min(longest * 6.6 + 16, width * 0.36);
    const row = above ? 44 : 24;
    const most = Math.max(...timed.flatMap((cell) => cell.repetitions.map(([s]) => s)));
    const height = timed.length * row + 48;
    const x = (s) => left + (s / (most * 1.03)) * (width - left - 12);
    const picture = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Seconds per image, every repetition" });
    for (const v of ticks(0, most, width / 100)) {
      picture.append(drawn("line", { x1: x(v), x2: x(v), y1: 4, y2: height - 36, class: "grid" }));
      picture.append(drawn("text", { x: x(v), y: height - 20, class: "tick middle" }, plain(v)));
    }
    picture.append(drawn("text", { x: width - 12, y: height - 4, class: "axis-name end" }, "s per image →"));
    picture.append(...timed.map((cell, i) => strip(cell, i, { x, left, row, above })));
    frame.replaceChildren(picture);
  }

  fitted(frame, draw);
})();
