// --- the drawing: channels as columns, and who reads whom from layer to layer ---

const MOST_COLUMNS = 64;
const MOST_LINES = 8; // a longer run of columns is drawn as a fan
const [STEP, GAP, LEFT, RIGHT, TOP] = [14, 76, 96, 118, 22];

function readsOf(layer, output) {
  if (layer.reads) return layer.reads[output];
  const start = layer.starts[output];
  return Array.from({ length: layer.fan }, (_, n) => (start + n) % layer.in);
}

// The channels that an output of the last layer sees, row by row, the input first.
function traced(chain, output) {
  const rows = [new Set([output])];
  for (const layer of [...chain].reverse()) {
    const seen = new Set();
    for (const channel of rows[0]) for (const read of readsOf(layer, channel)) seen.add(read);
    rows.unshift(seen);
  }
  return rows;
}

function runs(columns) {
  const found = [];
  for (const column of [...columns].sort((a, b) => a - b)) {
    const last = found[found.length - 1];
    if (last && last[1] === column - 1) last[1] = column;
    else found.push([column, column]);
  }
  return found;
}

function drawing(design) {
  const chain = design.chain;
  const widths = [design.of.channels, ...chain.map((layer) => layer.out)];
  const each = Math.ceil(Math.max(...widths) / MOST_COLUMNS);
  const columns = widths.map((width) => Math.ceil(width / each));
  const most = Math.max(...columns);
  const step = Math.max(STEP, 380 / most);
  const wide = LEFT + most * step + RIGHT;
  const high = TOP + chain.length * GAP + 24;
  const x = (row, column) => LEFT + ((column + 0.5) * most * step) / columns[row];
  const y = (row) => TOP + row * GAP;

  // Lines and fans of some outputs of a layer, as the text of two paths.
  function paths(number, outputs) {
    const edges = new Map();
    for (const output of outputs) {
      const column = Math.floor(output / each);
      if (!edges.has(column)) edges.set(column, new Set());
      for (const read of readsOf(chain[number], output)) {
        edges.get(column).add(Math.floor(read / each));
      }
    }
    const [lines, fans] = [[], []];
    for (const [column, reads] of edges) {
      const end = `${x(number + 1, column).toFixed(1)} ${y(number + 1)}`;
      for (const [first, last] of runs(reads)) {
        if (last - first < MOST_LINES) {
          for (let read = first; read <= last; read++) {
            lines.push(`M${x(number, read).toFixed(1)} ${y(number)}L${end}`);
          }
        } else {
          const [a, b] = [first, last].map((read) => x(number, read).toFixed(1));
          fans.push(`M${a} ${y(number)}L${b} ${y(number)}L${end}Z`);
        }
      }
    }
    return [fans.join(""), lines.join("")];
  }

  const back = svg("g", {});
  chain.forEach((layer, number) => {
    const [fans, lines] = paths(number, Array.from({ length: layer.out }, (_, n) => n));
    back.append(svg("path", { class: "fan", d: fans }), svg("path", { class: "edge", d: lines }));
  });
  const front = svg("g", {});
  const dots = svg("g", {});
  const labels = svg("g", {});
  const root = svg(
    "svg",
    { class: "sight", viewBox: `0 0 ${wide} ${high}`, role: "img",
      style: `min-width: ${Math.round(0.8 * wide)}px` },
    back, front, dots, labels,
  );
  const names = ["input", ...chain.map((layer) => layer.name)];
  names.forEach((name, row) => {
    labels.append(svg("text", { x: LEFT - 10, y: y(row) + 4, class: "left" }, name));
  });
  const seen = names.map((_, row) => {
    const text = svg("text", { x: LEFT + most * step + 10, y: y(row) + 4 });
    labels.append(text);
    return text;
  });
  if (each > 1) {
    labels.append(svg("text", { x: LEFT, y: high - 4, class: "small" },
      `one column: ${each} channels`));
  }

  const last = chain.length;
  const caption = el("output", { class: "sees" });
  function show(output) {
    const rows = traced(chain, output);
    front.replaceChildren();
    chain.forEach((_, number) => {
      const [fans, lines] = paths(number, rows[number + 1]);
      front.append(svg("path", { class: "fan seen", d: fans }),
        svg("path", { class: "edge seen", d: lines }));
    });
    dots.replaceChildren();
    rows.forEach((row, number) => {
      const dark = new Set([...row].map((channel) => Math.floor(channel / each)));
      for (let column = 0; column < columns[number]; column++) {
        const dot = svg("circle", {
          cx: x(number, column), cy: y(number), r: 4,
          class: dark.has(column) ? "dot seen" : "dot",
        });
        if (number === last) {
          dot.classList.add("choice");
          dot.addEventListener("click", () => choose(column * each));
        }
        dots.append(dot);
      }
      seen[number].textContent = `${row.size} of ${widths[number]} seen`;
    });
    const all = rows[0].size === widths[0];
    const said = `Output ${output} sees ${all ? "all" : rows[0].size} of ${widths[0]} channels`;
    caption.textContent = said;
    root.setAttribute("aria-label", `${design.block}: ${said.toLowerCase()}.`);
  }

  const slider = el("input", {
    type: "range", min: 0, max: widths[last] - 1, id: "output", "aria-describedby": "sees",
    oninput: () => show(Number(slider.value)),
  });
  caption.id = "sees";
  function choose(output) {
    slider.value = output;
    show(output);
  }
  choose(Math.floor(widths[last] / 2));
  return el("div", {},
    el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Who sees whom" }, root),
    el("p", { class: "choose" }, el("label", { for: "output" }, "output channel "), slider, " ",
      caption));
}
