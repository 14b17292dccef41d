// Sorts the table by any column: best first, then worst first, then in the study's order.

(() => {
  const table = document.getElementById("figures");
  const body = table.tBodies[0];
  const planned = [...body.rows];
  const heads = [...table.tHead.rows[1].cells];

  function value(row, column) {
    const cell = row.cells[column];
    if (column === 0) return cell.textContent.trim();
    return "number" in cell.dataset ? +cell.dataset.number : null;
  }

  /** Compare numbers, or labels with the numbers in them as numbers: 5 steps before 10. */
  function compare(a, b) {
    if (typeof a === "number") return a - b;
    const [left, right] = [a, b].map((text) => text.split(/(\d+(?:\.\d+)?)/));
    const i = left.findIndex((part, at) => part !== right[at]);
    if (i < 0) return left.length - right.length;
    return i % 2 ? left[i] - right[i] : left[i].localeCompare(right[i] || ""); // odd parts are numbers
  }

  function sort(column, order) {
    const sign = order === "descending" ? -1 : 1;
    const known = planned.filter((row) => value(row, column) !== null);
    const unknown = planned.filter((row) => value(row, column) === null); // last in either order
    known.sort((a, b) => sign * compare(value(a, column), value(b, column)));
    body.append(...(order === "none" ? planned : [...known, ...unknown]));
    heads.forEach((head, i) => head.setAttribute("aria-sort", i === column ? order : "none"));
  }

  heads.forEach((head, column) => {
    const best = column ? head.dataset.best : "ascending";
    const turn = [best, best === "ascending" ? "descending" : "ascending", "none"];
    const next = () => sort(column, turn[(turn.indexOf(head.getAttribute("aria-sort")) + 1) % 3]);
    head.setAttribute("aria-sort", "none");
    head.replaceChildren(element("button", { type: "button", onclick: next }, ...head.childNodes));
  });

  // fade out the edge of a table that can be scrolled
  const box = table.parentElement;
  const fade = () => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 4);
  box.addEventListener("scroll", fade, { passive: true });
  fitted(box, fade);
})();
