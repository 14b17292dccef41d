// Which cells belong together, and what they look like: as in the figures beside this file.

const SHAPES = {
  o: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`,
  s: (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  D: (r) => `M0,${-1.35 * r}L${1.35 * r},0L0,${1.35 * r}L${-1.35 * r},0z`,
  "^": (r) => `M0,${-1.25 * r}L${1.2 * r},${r}H${-1.2 * r}z`,
  v: (r) => `M0,${1.25 * r}L${1.2 * r},${-r}H${-1.2 * r}z`,
};
const series = data.series.map((one) => ({ ...one, class: one.colour < 0 ? "grey" : `colour-${one.colour}` }));
const baseline = { name: "dense", class: "ink", marker: "D", joined: false };
baseline.cells = data.cells.filter((cell) => cell.role === "dense").map((cell) => cell.id);
const seriesOf = new Map([baseline, ...series].flatMap((one) => one.cells.map((id) => [id, one])));


function swatch(one) {
  const shape = drawn("path", { d: (SHAPES[one.marker] || SHAPES.o)(4.2), transform: "translate(7,7)", class: "mark" });
  const stroke = one.joined ? drawn("path", { d: "M0,7H14", class: "curve" }) : null;
  return drawn("svg", { class: `swatch ${one.class}`, width: 14, height: 14, "aria-hidden": "true" }, stroke, shape);
}
