// --- two to four blocks side by side ---

const [FEWEST, MOST] = [2, 4];

// The rows of a comparison: a name, a cell for each block, and whether they differ.
function comparison(designs) {
  const seen = (design) => design.fields[design.fields.length - 1];
  const times = TIMES.filter((time) => designs.some((design) => time.value(design) !== null));
  const longest = Math.max(...designs.map((design) => design.chain.length));
  return [
    ["layers", (design) => `${design.layers}`],
    ["parameters", (design) => whole(design.params)],
    ["× CONV", (design) => share(design.ratio)],
    ["MACs per pixel", (design) => whole(design.macs)],
    ["activations per pixel", (design) => whole(design.acts)],
    ["least fan-in", (design) => whole(design.fan_in)],
    ["sees", (design) => `${square(seen(design)[0], design.of.dims)}×${seen(design)[1]}`],
    ["setting", (design) => design.of.name],
    ...times.map((time) => [fullName(time), (design) => amount(time.value(design)) || "–"]),
    ...Array.from({ length: longest }, (_, n) => [`layer ${n + 1}`, (design) => {
      const layer = design.chain[n];
      return layer ? `${layer.name}: ${whole(layer.params)} parameters, ` +
        `sees ${design.fields[n][1]}` : "–";
    }]),
    ["full field", (design) => (design.condition ? formula(design.condition) : "–")],
    ["notes", (design) => notes(design).join("; ") || "–"],
  ].map(([name, cell]) => [name, designs.map(cell)]);
}

function compareBody(designs) {
  const text = (cell) => (typeof cell === "string" ? cell : cell.textContent);
  const rows = comparison(designs).map(([name, cells]) => {
    const differ = new Set(cells.map(text)).size > 1;
    return el("tr", { class: differ ? "differ" : null },
      el("th", { scope: "row" }, name), cells.map((cell) => el("td", {}, cell)));
  });
  const heads = designs.map((design) => el("th", { scope: "col" },
    el("button", { type: "button", class: "link", onclick: () => openDesigns([design.place]) },
      foldable(design.block))));
  return [
    el("p", { class: "under" }, "What differs is dark."),
    el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Side by side" },
      el("table", { class: "compare" },
        el("thead", {}, el("tr", {}, el("td", {}), heads)), el("tbody", {}, rows))),
  ];
}
