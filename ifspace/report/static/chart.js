// --- charts: the plane of the catalogue, and those that come with their specification ---

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function theme(width) {
  const [ink, faint, line] = ["--ink", "--faint", "--line"].map(colour);
  const text = { labelColor: ink, titleColor: ink, labelFontSize: 12, titleFontSize: 12 };
  return {
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: { ...text, gridColor: line, domainColor: faint, tickColor: faint, titleFontWeight: 500 },
    // A legend does not fold by itself.
    legend: {
      ...text, orient: "top", symbolSize: 90, labelLimit: Math.min(330, width - 100),
      columns: width < 700 ? 1 : 0,
    },
    title: { color: ink, anchor: "start", fontSize: 12, fontWeight: 500, limit: width - 20 },
    header: text,
    text: { color: ink, fontSize: 11 },
    mark: { color: colour("--accent") },
    range: {
      category: ["--accent", "--second", "--third", "--fourth", "--faint"].map(colour),
    },
  };
}

const EMBED = { actions: false, renderer: "svg" };

// `patch` changes what Vega-Lite makes of the specification, for what it has no word for.
async function embed(place, spec, patch = (vega) => vega) {
  if (place.view) place.view.finalize();
  const inner = place.querySelector(".vega");
  const options = { ...EMBED, patch, config: theme(inner.clientWidth) };
  const { view } = await vegaEmbed(inner, spec, options);
  place.view = view;
  return view;
}

// A chart of its own is drawn when it comes near the window, and all are for paper.
function watchCharts() {
  const specs = JSON.parse(byId("charts").textContent);
  const places = [...document.querySelectorAll("[data-chart]")];
  const waiting = new Set(places);
  const draw = (place) => {
    waiting.delete(place);
    watcher.unobserve(place);
    return embed(place, specs[place.dataset.chart]);
  };
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting && waiting.has(target)) draw(target);
      }
    },
    { rootMargin: "400px" },
  );
  places.forEach((place) => watcher.observe(place));
  addEventListener("beforeprint", () => [...waiting].forEach(draw));
  return () => places.filter((place) => place.view).forEach(draw);
}

// --- the plane ---

// How a block stands, with its colour and its form.
const STANDINGS = [
  ["not dominated", "--accent", "circle"],
  ["dominated", "--faint", "circle"],
  ["published", "--second", "diamond"],
  ["to compare with", "--third", "square"],
];

// Designs of the same values are one point, which stands for the best known of them.
function pointsOf(designs, x, y) {
  const points = new Map();
  for (const design of designs) {
    const [a, b] = [x.value(design), y.value(design)];
    if (a === null || b === null) continue;
    const key = `${a}|${b}`;
    if (!points.has(key)) points.set(key, { x: a, y: b, designs: [] });
    points.get(key).designs.push(design);
  }
  const rank = { published: 0, "not dominated": 1, "to compare with": 2, dominated: 3 };
  return [...points.values()]
    .map((point) => {
      const byRank = (a, b) => rank[standing(a)] - rank[standing(b)];
      const best = [...point.designs].sort(byRank)[0];
      const more = point.designs.length - 1;
      const blocks = more ? `${best.block} and ${more} more` : best.block;
      return {
        x: point.x,
        y: point.y,
        blocks,
        count: point.designs.length,
        standing: standing(best),
        label: best.known ? shortName(best) : "",
        rank: rank[standing(best)],
        short: point.designs.every(isShort),
        places: point.designs.map((design) => design.place),
      };
    })
    .sort((a, b) => a.x - b.x || a.y - b.y);
}

// The points that none beats in both directions; corners make a stair of them. What sees less than
// the convolution beats none.
function frontOf(points) {
  const best = [];
  for (const { x, y, short } of points) {
    if (!short && (!best.length || y < best[best.length - 1].y)) best.push({ x, y });
  }
  return best;
}

// All digits times the powers of ten on a short way, fewer on a longer one.
function ticks(low, high) {
  const short = high < 8 * low;
  const steps = short ? [1, 2, 3, 4, 5, 6, 7, 8, 9] : high < 2000 * low ? [1, 2, 5] : [1];
  const found = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
    for (const step of steps) found.push(step * 10 ** power);
  }
  return found.filter((tick) => tick >= low && tick <= high);
}

// Whole numbers of an axis at equal steps, not more than it has room for.
function wholeTicks(low, high) {
  let step = 1;
  while ((high - low) / step > 10) step *= `${step}`.startsWith("2") ? 2.5 : 2;
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.max(0, Math.floor(high / step) - first + 1) },
    (_, n) => (first + n) * step);
}

function axisOf(measure, values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const counts = measure.key === "layers";
  const log = !counts && low > 0 && high > 3 * low;
  const room = log ? (high / low) ** 0.06 : (high - low) * 0.06 || 1;
  const domain = log ? [low / room, high * room] : [low - room, high + room];
  const axis = log
    ? { values: ticks(...domain), format: ",~r", labelOverlap: true }
    : { values: measure.whole ? wholeTicks(...domain) : undefined,
      format: measure.whole ? ",d" : ",~r", labelOverlap: true };
  return {
    type: "quantitative",
    title: measure.name,
    scale: log ? { type: "log", domain, nice: false } : { domain, nice: false, zero: false },
    axis,
  };
}

// Labels stand beside their points, on no point and on no other label: one that has no room, or
// stands for less than those around it, is left out.
function labelled(vega) {
  const sides = ["right", "left", "top", "bottom", "top-right", "top-left", "bottom-right",
    "bottom-left"];
  const words = {
    text: { field: "datum.label" }, fill: { value: colour("--ink") }, fontSize: { value: 11.5 },
    font: { value: "system-ui, sans-serif" }, limit: { signal: "width / 2 - 10" },
  };
  const place = {
    type: "label", size: { signal: "[width, height]" }, anchor: sides, offset: [3],
    sort: { field: "datum.datum.rank" },
  };
  const marks = { type: "text", from: { data: "points_marks" }, interactive: false, aria: false };
  vega.marks.push({ ...marks, encode: { update: words }, transform: [place] });
  return vega;
}

function planeSpec(points, x, y, picked) {
  const at = {
    x: { field: "x", ...axisOf(x, points.map((point) => point.x)) },
    y: { field: "y", ...axisOf(y, points.map((point) => point.y)) },
  };
  const present = STANDINGS.filter(([name]) => points.some((point) => point.standing === name));
  const named = (range) => ({ domain: present.map(([name]) => name), range });
  const colours = named(present.map(([, name]) => colour(name)));
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    width: "container",
    height: 400,
    autosize: { type: "fit-x", contains: "padding" },
    title: [...new Set([x.where, y.where].filter(Boolean))],
    layer: [
      {
        data: { name: "front", values: frontOf(points) },
        mark: { type: "line", interpolate: "step-after", strokeWidth: 1.2, opacity: 0.7, aria: false },
        encoding: { ...at, color: { value: colour("--accent") } },
      },
      {
        name: "points",
        data: { name: "points", values: points },
        params: [{ name: "brush", select: { type: "interval", encodings: ["x", "y"] } }],
        mark: { type: "point", filled: true, opacity: 0.85, cursor: "pointer" },
        encoding: {
          ...at,
          color: { field: "standing", scale: colours, title: null },
          shape: {
            field: "standing", title: null, scale: named(present.map(([, , form]) => form)),
          },
          fillOpacity: { condition: { test: "datum.standing === 'dominated'", value: 0.25 },
            value: 0.95 },
          stroke: { field: "standing", scale: colours, title: null },
          size: {
            field: "count", title: "blocks at a point", type: "quantitative",
            scale: { type: "sqrt", domain: [1, 100], range: [70, 700], clamp: true },
            legend: null,
          },
          order: { field: "count", sort: "descending" },
          // Only the points are selected, not the line.
          tooltip: [
            { field: "blocks", title: "block" },
            { field: "x", title: fullName(x), format: ",.6~g" },
            { field: "y", title: fullName(y), format: ",.6~g" },
            { field: "standing", title: "standing" },
          ],
        },
      },
      {
        data: { name: "picked", values: picked },
        mark: { type: "point", size: 260, strokeWidth: 2, filled: false, aria: false },
        encoding: { ...at, color: { value: colour("--second") } },
      },
      {
        data: { name: "focus", values: [] },
        mark: { type: "point", size: 500, strokeWidth: 2.5, filled: false, aria: false },
        encoding: { ...at, color: { value: colour("--ink") } },
      },
    ],
  };
}

// The plane and its keyboard: arrows go from point to point, Enter opens what stands there, Space
// selects it. `select` is called with the places within a frame that was drawn, or none.
class Plane {
  constructor(place, said, open, select) {
    Object.assign(this, { place, said, open, select, points: [], at: -1, picked: new Set() });
    place.addEventListener("pointerdown", ({ x, y }) => (this.pressed = [x, y]));
    place.addEventListener("keydown", (event) => this.key(event));
    place.addEventListener("blur", () => this.mark(-1));
  }

  async draw(designs, x, y) {
    // What blocks are compared with is out of scale where no time is compared.
    const timed = [x, y].some((measure) => measure.bench);
    this.points = pointsOf(designs.filter((each) => timed || !each.baseline), x, y);
    this.at = -1;
    const number = (this.drawn = (this.drawn || 0) + 1);
    const empty = this.points.length === 0;
    this.place.classList.toggle("empty", empty);
    if (empty) {
      // That there is no block at all is said in place of the table.
      this.said.textContent = designs.length ? "No block that is shown has both values." : "";
      return;
    }
    this.said.textContent = "";
    const view = await embed(this.place, planeSpec(this.points, x, y, this.pickedPoints()),
      labelled);
    if (number !== this.drawn) return;
    this.view = view;
    view.addEventListener("click", (event, item) => {
      const [a, b] = this.pressed || [event.x, event.y];
      const moved = Math.hypot(event.clientX - a, event.clientY - b) > 4;
      if (!moved && item && item.datum && item.datum.places) this.open(item.datum.places);
    });
    let frame = null;
    view.addSignalListener("brush", (_, { x: across, y: up }) => {
      clearTimeout(frame);
      const within = (value, ends) => value >= Math.min(...ends) && value <= Math.max(...ends);
      const places = across && up
        ? this.points.filter((point) => within(point.x, across) && within(point.y, up))
          .flatMap((point) => point.places)
        : null;
      frame = setTimeout(() => this.select(places), 80);
    });
  }

  pickedPoints() {
    return this.points.filter((point) => point.places.some((place) => this.picked.has(place)))
      .map(({ x, y }) => ({ x, y }));
  }

  pick(picked) {
    this.picked = picked;
    if (this.view) this.view.data("picked", this.pickedPoints()).run();
  }

  mark(at) {
    this.at = at;
    const point = this.points[at];
    if (this.view) {
      this.view.data("focus", point ? [{ x: point.x, y: point.y }] : []).run();
    }
    this.said.textContent = point
      ? `${point.blocks}: ${point.x.toLocaleString("en-US")}, ${point.y.toLocaleString("en-US")}`
      : "";
  }

  key(event) {
    const last = this.points.length - 1;
    const to = {
      ArrowRight: Math.min(this.at + 1, last), ArrowUp: Math.min(this.at + 1, last),
      ArrowLeft: Math.max(this.at - 1, 0), ArrowDown: Math.max(this.at - 1, 0),
      Home: 0, End: last,
    }[event.key];
    if (to !== undefined && last >= 0) {
      event.preventDefault();
      this.mark(to);
    } else if (event.key === " " && this.at >= 0) {
      event.preventDefault();
      this.select(this.points[this.at].places, true);
    } else if (event.key === "Enter" && this.at >= 0) {
      event.preventDefault();
      this.open(this.points[this.at].places);
    }
  }
}
