// --- the data: designs, what was measured of them, which of them are shown ---

const DATA = JSON.parse(byId("data").textContent);
const NAMES = Object.keys(DATA.designs);

const DESIGNS = DATA.designs.block.map((_, place) => {
  const design = { place };
  for (const name of NAMES) design[name] = DATA.designs[name][place];
  design.kinds = design.chain.map((number) => DATA.layers[number].kind);
  design.chain = design.chain.map((number) => DATA.layers[number]);
  design.formula = DATA.texts[design.formula];
  design.condition = DATA.texts[design.condition];
  design.of = DATA.settings[design.setting];
  // What it is measured under: the block, and the width inside where there is one.
  design.candidate = design.candidate || design.block;
  design.ratio = design.params / design.of.reference;
  design.text = [design.block, design.kinds.join("+"), design.known, design.same]
    .filter(Boolean).join(" ").toLowerCase();
  return design;
});

// The ways to write each network: the one that represents it comes first.
const WAYS = new Map();
for (const design of DESIGNS) {
  if (design.network === null) continue;
  if (!WAYS.has(design.network)) WAYS.set(design.network, []);
  const ways = WAYS.get(design.network);
  if (design.represents) ways.unshift(design);
  else ways.push(design);
}
const waysOf = (design) => WAYS.get(design.network) || [design];

// What designs can be compared by. Times are found in the benchmarks, of equal places only.
const PLAIN = [
  { key: "params", name: "parameters", whole: true, value: (design) => design.params },
  { key: "macs", name: "MACs per pixel", whole: true, value: (design) => design.macs },
  { key: "acts", name: "activations per pixel", whole: true, value: (design) => design.acts },
  { key: "layers", name: "layers", whole: true, value: (design) => design.layers },
];

// Whether something was measured, or written, where a design's setting is: at its widths and
// stride, and of maps, which have two dimensions.
const samePlace = (setting, place) =>
  setting.dims === 2 && setting.channels === place.channels && setting.out === place.out &&
  setting.stride === place.stride;

function timesOf(bench, place) {
  // The least comes first: a busy machine disturbs it least.
  const kinds = [
    ["least time", "least", true],
    ["time", "median", true],
    ["predicted time", "predicted", false],
  ];
  return kinds
    .filter(([metric]) => Object.values(bench.rows).some((row) => metric in row))
    .map(([metric, said, measured]) => ({
      key: `${metric.replace(" ", "-")}-${place}`,
      name: `${bench.mode}, ${said} ms`,
      where: `${bench.what} on ${bench.device}`,
      bench,
      measured,
      value: (design) => {
        if (!samePlace(design.of, bench)) return null;
        const row = (bench.rows[design.candidate] || {})[metric];
        return row ? row[0] : null;
      },
    }));
}

const TIMES = DATA.benches.flatMap(timesOf);
const MEASURED = TIMES.filter((time) => time.measured);

const fullName = (measure) =>
  measure.where ? `${measure.name}: ${measure.where}` : measure.name;

const findMeasure = (key) => [...PLAIN, ...TIMES].find((measure) => measure.key === key) || null;

function sourceOf(design) {
  const found = DATA.sources.find(
    (each) => samePlace(design.of, each) && design.candidate in each.blocks,
  );
  return found ? found.blocks[design.candidate] : null;
}

// A published name without how often it stands in a row.
const shortName = (design) => design.known.split(";")[0].replace(/ \(.*/, "");

function notes(design) {
  if (design.baseline) {
    const [side, channels] = design.fields[design.fields.length - 1];
    return [`${design.known}: to compare with`,
      ...(isShort(design) ? [`sees only ${square(side, design.of.dims)}×${channels}`] : [])];
  }
  const said = [];
  if (design.known) said.push(design.known);
  if (design.same) said.push(`= ${design.same}`);
  if (design.by) said.push(`dominated by ${design.by}`);
  const [first, ...others] = waysOf(design);
  if (first !== design) said.push(`same network as ${first.block}`);
  else if (others.length) {
    said.push(`${others.length} more way${others.length > 1 ? "s" : ""} to write it`);
  }
  return said;
}

// Whether it sees less than the convolution that the designs replace: only what they are compared
// with may. `field` is what its setting asks for.
function isShort(design) {
  const [side, channels] = design.fields[design.fields.length - 1];
  return side < design.of.field || channels < design.of.channels;
}

const standing = (design) => {
  if (design.baseline) return "to compare with";
  if (design.known) return "published";
  return design.by ? "dominated" : "not dominated";
};

// --- filters ---

const SHOWN = {
  all: () => true,
  free: (design) => !design.by && !design.baseline,
  simple: (design) => !design.same && !design.baseline,
  published: (design) => Boolean(design.known) && !design.baseline,
  measured: (design) => MEASURED.some((time) => time.value(design) !== null),
  irreducible: (design) => design.irreducible && !design.baseline,
};

function inside(value, [low, high]) {
  if (low === null && high === null) return true;
  return value !== null && (low === null || value >= low) && (high === null || value <= high);
}

function filtered(state) {
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  return DESIGNS.filter(
    (design) =>
      design.setting === state.setting &&
      (design.baseline || design.kinds.every((kind) => state.kinds.has(kind))) &&
      inside(design.layers, state.layers) &&
      inside(design.params, state.params) &&
      (!state.time || inside(state.time.value(design), state.times)) &&
      SHOWN[state.shown](design) &&
      words.every((word) => design.text.includes(word)),
  );
}

// One design a network: the one that represents it where it is there, else the shortest.
function once(designs) {
  const firsts = new Map();
  for (const design of designs) {
    const key = design.network === null ? `own ${design.place}` : design.network;
    const first = firsts.get(key);
    const before = first && (first.represents ||
      (!design.represents && first.layers <= design.layers));
    if (!before) firsts.set(key, design);
  }
  return [...firsts.values()];
}

// What has no value stands last, whichever way is up.
function sorted(designs, column, down) {
  const value = column.sort;
  return [...designs].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === y) return a.params - b.params || a.layers - b.layers || a.place - b.place;
    if (x === null || y === null) return x === null ? 1 : -1;
    return (x < y ? -1 : 1) * (down ? -1 : 1);
  });
}
