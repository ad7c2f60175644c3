// --- parallel coordinates: an axis for each measure, a line for each block ---

const [LANE, TALL, HEAD, FOOT, SIDE] = [190, 300, 44, 16, 70];

// Where a value stands on an axis, from 0 to 1; on a long way by its logarithm.
function scaleOf(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const log = low > 0 && high > 3 * low;
  const at = log ? Math.log : (value) => value;
  const room = at(high) - at(low);
  return { low, high, log, of: (value) => (room ? (at(value) - at(low)) / room : 0.5) };
}

// Some values to name on an axis: whole numbers of what is counted.
function marksOf(scale, measure) {
  const { low, high, log } = scale;
  if (log) return [...new Set([low, ...ticks(low, high), high])].sort((a, b) => a - b);
  if (measure.whole) return wholeTicks(low, high);
  return low === high ? [low] : [0, 1, 2, 3, 4].map((n) => low + ((high - low) * n) / 4);
}

// Names that would stand on each other are left out.
function apart(marks, y) {
  const kept = [];
  for (const mark of marks) {
    if (!kept.length || Math.abs(y(mark) - y(kept[kept.length - 1])) >= 15) kept.push(mark);
  }
  return kept;
}

function parallel(designs, measures, picked, open) {
  const usable = measures.filter((measure) =>
    designs.some((design) => measure.value(design) !== null));
  const scales = usable.map((measure) =>
    scaleOf(designs.map(measure.value).filter((value) => value !== null)));
  const x = (n) => SIDE + n * LANE;
  const y = (n, value) => HEAD + TALL * (1 - scales[n].of(value));
  const wide = 2 * SIDE + Math.max(0, usable.length - 1) * LANE;
  const lines = [...designs].sort((a, b) => picked.has(a.place) - picked.has(b.place))
    .map((design) => {
      // A line is broken where there is no value.
      let drawn = false;
      const d = usable.map((measure, n) => {
        const value = measure.value(design);
        const step = value === null ? "" :
          `${drawn ? "L" : "M"}${x(n)} ${y(n, value).toFixed(1)}`;
        drawn = value !== null;
        return step;
      }).join("");
      const state = picked.has(design.place) ? "picked" : design.by ? "dominated" : "";
      return svg("path", { d, class: `course ${state}`, "data-place": design.place,
        onclick: () => open([design.place]) }, svg("title", {}, design.block));
    });
  const axes = usable.map((measure, n) => svg("g", {},
    svg("line", { x1: x(n), x2: x(n), y1: HEAD, y2: HEAD + TALL, class: "axis" }),
    svg("text", { x: x(n), y: 16, class: "middle" }, measure.name),
    apart(marksOf(scales[n], measure), (mark) => y(n, mark)).map((mark) =>
      svg("text", { x: x(n) - 6, y: y(n, mark) + 4, class: "end" },
        measure.whole ? whole(mark) : amount(mark)))));
  return svg("svg", { viewBox: `0 0 ${wide} ${HEAD + TALL + FOOT}`, class: "parallel", role: "img",
    "aria-label": `${designs.length} blocks as lines over ${usable.length} axes`,
    style: `min-width: ${Math.min(wide, 760)}px` }, lines, axes);
}
