// --- one block, opened: numbers, drawing, layers, formulas, what was measured, source ---

function pairs(rows, kind) {
  return el("dl", { class: kind }, rows.filter(Boolean).map(([name, ...values]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, ...values))));
}

function grid(header, rows, label) {
  const right = header.map((name) => name.startsWith(">"));
  const cells = (row, tag) => row.map((cell, n) =>
    el(tag, { class: right[n] ? "right" : null, scope: tag === "th" ? "col" : null }, cell));
  return el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": label },
    el("table", {},
      el("thead", {}, el("tr", {}, cells(header.map((name) => name.replace(/^>/, "")), "th"))),
      el("tbody", {}, rows.map((row) => el("tr", {}, cells(row, "td"))))));
}

function layersTable(design) {
  const dims = design.of.dims;
  const rows = design.chain.map((layer, n) => {
    const [side, channels] = design.fields[n];
    return [`${n + 1}`, layer.name,
      layer.in === layer.out ? `${layer.in}` : `${layer.in}→${layer.out}`,
      `${layer.fan}`, `${square(side, dims)}×${channels}`, whole(layer.params), whole(layer.acts)];
  });
  return grid([">#", "layer", ">channels", ">reads", ">field after it", ">params", ">writes"],
    rows, "Layers");
}

// Networks that others trained with blocks of the same kinds, any groups.
function publishedTable(design) {
  const rows = DATA.published[design.evidence].map(([place, same]) => {
    const row = DATA.trained[place];
    return [row.block, row.groups, row.inside, same ? "yes" : "", row.dataset, row.network,
      row.width, whole(row.params), row.error.toFixed(2), row.change, row.source];
  });
  if (!rows.length) return el("p", {}, "No published network of such blocks is in the table.");
  return grid(["block", ">groups", ">inside", "same", "data", "network", ">width", ">params",
    ">error %", "change", "source"], rows, "Published networks");
}

// The groups as the formulas name them: numbered over the layers that have any.
function symbolsOf(design) {
  const said = [];
  let number = 0;
  for (const layer of design.chain.slice(0, design.layers)) {
    if (layer.groups === null) continue;
    number += 1;
    said.push(`g_${number} = ${layer.groups}`);
    if (layer.mixing) said.push(`w_${number} = ${layer.fan}`);
    if (layer.step !== null) said.push(`s_${number} = ${layer.step}`);
    if (layer.windows !== null) said.push(`P_${number} = ${layer.windows}`);
  }
  return said;
}

function measuredTable(design) {
  const rows = [];
  for (const bench of DATA.benches) {
    if (!samePlace(design.of, bench)) continue;
    const metrics = bench.rows[design.candidate] || {};
    for (const [metric, [median, low, high, unit]] of Object.entries(metrics)) {
      const spread = low === null || low === high ? "" : `${amount(low)}–${amount(high)}`;
      rows.push([metric, bench.mode, unit === "count" || median >= 1e4 ? whole(median)
        : amount(median), spread, unit, bench.what, bench.device]);
    }
  }
  if (!rows.length) return el("p", {}, "Not measured: `ifspace bench` measures the best blocks.");
  return grid(["what", "mode", ">median", ">p20–p80", "unit", "shape", "device"], rows,
    "What was measured");
}

function howToBuild(design) {
  const { channels, out, stride } = design.of;
  const [block, ratio] = design.block.split(", bottleneck ");
  const bottleneck = ratio || design.of.bottleneck;
  const more = [
    bottleneck ? `, bottleneck="${bottleneck}"` : "",
    stride > 1 ? `, stride=${stride}` : "",
  ].join("");
  return `from ifspace.nn import build, to_source\n\n` +
    `print(to_source(build("${block}", ${channels}, ${out}${more})))\n`;
}

function sourceBlock(design) {
  const own = sourceOf(design);
  const text = own === null ? howToBuild(design) : own;
  const said = el("span", { role: "status", class: "done" });
  const button = el("button", { type: "button", class: "copy", onclick: async () => {
    said.textContent = (await copy(text)) ? "Copied." : "Copying failed: mark the text instead.";
  } }, "Copy");
  const about = own === null
    ? "The source is kept for measured blocks; this prints it for any:"
    : "To paste into your own model:";
  return el("div", { class: "source" }, el("p", {}, about, " ", button, " ", said),
    el("pre", { tabindex: 0, role: "group", "aria-label": "Source" }, el("code", {}, text)));
}

// Ways to write the network of a block that are listed beside it.
const MOST_WAYS = 6;

function facts(design) {
  const seen = design.fields[design.fields.length - 1];
  const link = (found, text) =>
    el("button", { type: "button", class: "link", onclick: () => openDesigns([found.place]) },
      text);
  const other = (block) => {
    const found = DESIGNS.find((each) => each.setting === design.setting &&
      each.kinds.slice(0, each.layers).join("+") === block);
    return found ? link(found, block) : block;
  };
  const ways = waysOf(design).filter((each) => each !== design);
  const listed = ways.slice(0, MOST_WAYS)
    .flatMap((each, n) => (n ? [", ", link(each, each.block)] : [link(each, each.block)]));
  if (ways.length > MOST_WAYS) listed.push(`, and ${ways.length - MOST_WAYS} more`);
  return pairs([
    ["parameters", `${whole(design.params)}, ${share(design.ratio)} of the convolution's`],
    ["MACs per pixel", whole(design.macs)],
    ["activations per pixel", whole(design.acts)],
    ["least fan-in", whole(design.fan_in)],
    ["sees", `${square(seen[0], design.of.dims)} pixels of ${seen[1]} channels`],
    design.known && [design.baseline ? "known as" : "published as", design.known],
    design.same && ["cheaper as", other(design.same)],
    design.by && ["dominated by", other(design.by)],
    ways.length > 0 && ["same network as", ...listed],
    design.baseline ? null : ["layers to spare", design.irreducible
      ? "none, alone or together" : "none alone; some can go together"],
  ], "facts");
}

function formulas(design) {
  const { channels, out, kernel, bottleneck } = design.of;
  const inner = bottleneck ? [`K = ${bottleneck} F`] : [];
  const where = [`C = ${channels}`, `F = ${out}`, ...inner, `k = ${kernel}`,
    ...symbolsOf(design)];
  return pairs([
    ["parameters", formula(design.formula), ` = ${whole(design.params)}`],
    design.condition && ["full field", formula(design.condition)],
    ["where", formula(where.join(", "))],
  ]);
}

function section(title, ...children) {
  return el("section", {}, el("h3", {}, title), ...children);
}

function detail(design) {
  return [
    el("p", { class: "under" }, `${design.of.name}; layers from input to output`),
    facts(design),
    section("Who sees whom", drawing(design)),
    section("Layer by layer", layersTable(design)),
    section("Formulas and groups", formulas(design)),
    section("Measured", measuredTable(design)),
    section("Published networks of such blocks", publishedTable(design)),
    design.of.dims === 2 ? section("PyTorch", sourceBlock(design)) : null,
  ].filter(Boolean);
}

function choiceOf(designs) {
  return [
    el("p", { class: "under" }, "They have the same values on both axes. Choose one:"),
    el("ul", { class: "choice" }, designs.map((design) => el("li", {},
      el("button", { type: "button", class: "link", onclick: () => openDesigns([design.place]) },
        design.block),
      el("span", { class: "faint" }, [`${design.layers} layers`,
        `${whole(design.params)} parameters`, ...notes(design)].join(", "))))),
  ];
}

const DIALOG = byId("block");
let returnTo = null;
let chosenFrom = null; // the blocks of a point, while one of them is open

function openDesigns(places, from) {
  const designs = places.map((place) => DESIGNS[place]);
  const one = designs.length === 1;
  const origin = from || (DIALOG.open ? null : document.activeElement);
  if (origin) returnTo = origin;
  const title = one ? designs[0].block : `${designs.length} blocks`;
  byId("block-title").replaceChildren(...foldable(title));
  if (!one) chosenFrom = places;
  const others = one && chosenFrom && chosenFrom.includes(places[0]) ? chosenFrom : null;
  const back = others && el("p", {}, el("button", { type: "button", class: "link",
    onclick: () => openDesigns(others) }, `← all ${others.length} blocks of the point`));
  byId("block-body").replaceChildren(...(one ? [back, ...detail(designs[0])].filter(Boolean)
    : choiceOf(designs)));
  if (!DIALOG.open) DIALOG.showModal();
  byId("block-body").scrollTop = 0;
  byId("block-title").focus();
  setAddress(one ? designs[0] : null);
}

// The dialog with some blocks side by side.
function openCompared(designs) {
  if (!DIALOG.open) returnTo = document.activeElement;
  byId("block-title").replaceChildren(`${designs.length} blocks side by side`);
  byId("block-body").replaceChildren(...compareBody(designs));
  if (!DIALOG.open) DIALOG.showModal();
  byId("block-body").scrollTop = 0;
  byId("block-title").focus();
}

// Opens the block that the address names; returns what there is to say when there is none.
function openFromAddress() {
  const found = /[#&]block=(\d+):([^&]+)$/.exec(location.hash);
  if (!found) return "";
  const [number, name] = [Number(found[1]), decoded(found[2])];
  const some = DESIGNS.filter((each) => each.setting === number);
  const design = some.find((each) => each.candidate === name) ||
    some.find((each) => each.block === name);
  if (design) {
    openDesigns([design.place]);
    return "";
  }
  if (DIALOG.open) DIALOG.close();
  const setting = DATA.settings[number];
  return `There is no block ${name}${setting ? ` at ${setting.name}` : ""} on this page.`;
}

DIALOG.addEventListener("close", () => {
  setAddress(null);
  if (returnTo && returnTo.isConnected) returnTo.focus();
  returnTo = null;
  chosenFrom = null;
});
// A click beside the dialog closes it, as Esc does.
DIALOG.addEventListener("click", (event) => {
  if (event.target === DIALOG) DIALOG.close();
});
byId("block-close").addEventListener("click", () => DIALOG.close());
