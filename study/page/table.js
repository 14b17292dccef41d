// The table, sorted by any column: best first, then worst first, then as the study planned it.

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

  function compare(a, b) {
    return typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  }

  function sort(column, order) {
    const sign = order === "descending" ? -1 : 1;
    const known = planned.filter((row) => value(row, column) !== null);
    const unknown = planned.filter((row) => value(row, column) === null); // last, whichever way
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

  // a table that goes on beyond the edge fades out there
  const box = table.parentElement;
  const fade = () => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 4);
  box.addEventListener("scroll", fade, { passive: true });
  fitted(box, fade);
})();
