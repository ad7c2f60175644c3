// --- the page put together ---

const FORM = byId("filters");
const range = (name) => ["low", "high"].map((end) => {
  const text = FORM.elements[`${name}-${end}`].value.trim();
  return text === "" ? null : Number(text);
});

function stateOf() {
  const time = findMeasure(FORM.elements.time.value);
  return {
    setting: Number(FORM.elements.setting.value),
    text: FORM.elements.text.value,
    shown: FORM.elements.shown.value,
    every: FORM.elements.every.checked,
    kinds: new Set([...FORM.querySelectorAll("[name=kind]:checked")].map((box) => box.value)),
    layers: range("layers"),
    params: range("params"),
    time,
    times: range("times"),
  };
}

function options(select, choices, chosen) {
  select.replaceChildren(...choices.map(([value, text]) =>
    el("option", { value, selected: value === chosen }, text)));
}

// The times that were taken where a setting is.
function timesAt(setting) {
  return TIMES.filter(({ bench }) => samePlace(DATA.settings[setting], bench));
}

function settle(setting) {
  const times = timesAt(setting);
  options(FORM.elements.time, times.map((time) => [time.key, fullName(time)]));
  FORM.querySelectorAll(".timed").forEach((part) => (part.hidden = times.length === 0));
  const measures = [...PLAIN, ...times].map((each) => [each.key, fullName(each)]);
  options(byId("x-axis"), measures, "layers");
  options(byId("y-axis"), measures, "params");
  const designs = DESIGNS.filter((each) => each.setting === setting && !each.baseline);
  for (const [name, value] of [["params", (d) => d.params], ["layers", (d) => d.layers]]) {
    const values = designs.map(value);
    FORM.elements[`${name}-low`].placeholder = values.length ? `${Math.min(...values)}` : "";
    FORM.elements[`${name}-high`].placeholder = values.length ? `${Math.max(...values)}` : "";
  }
}

const TABLE = new DesignTable(byId("designs"), byId("more"), openDesigns);
const PLANE = new Plane(byId("plane"), byId("plane-said"), (places) =>
  openDesigns(places, byId("plane")));

function drawPlane(designs) {
  const [x, y] = ["x-axis", "y-axis"].map((id) => findMeasure(byId(id).value));
  return PLANE.draw(designs, x, y);
}

let shown = [];
function update() {
  const state = stateOf();
  const passing = filtered(state);
  // Ways to write a network take different times: all that were measured are compared.
  shown = state.every || state.shown === "measured" ? passing : once(passing);
  const all = DESIGNS.filter((design) => design.setting === state.setting && !design.baseline);
  const own = passing.filter((design) => !design.baseline).length;
  const more = passing.length - own;
  const hidden = passing.length - shown.length;
  byId("count").textContent = `${whole(own)} of ${whole(all.length)} blocks` +
    (hidden ? `: ${whole(own - hidden)} networks` : "") +
    (more ? `, and ${more} to compare with` : "");
  TABLE.show(shown, state.time);
  drawPlane(shown);
  byId("designs").hidden = shown.length === 0;
  byId("none").hidden = shown.length > 0;
  byId("designs").ariaBusy = "false";
}

// The status line goes on with what is wrong in the address, until the next filter.
function follow() {
  const wrong = openFromAddress();
  if (!wrong) return;
  update();
  byId("count").append(`. ${wrong}`);
}

let waiting = null;
function soon() {
  byId("designs").ariaBusy = "true";
  clearTimeout(waiting);
  waiting = setTimeout(update, 120);
}

options(FORM.elements.setting, DATA.settings.map((each, n) => [`${n}`, each.name]));
byId("setting-row").hidden = DATA.settings.length < 2;
byId("kinds").append(...DATA.kinds.map((kind) => el("label", {},
  el("input", { type: "checkbox", name: "kind", value: kind, checked: true }), ` ${kind}`)));
settle(0);

FORM.addEventListener("input", (event) => {
  if (event.target.name === "setting") settle(Number(event.target.value));
  soon();
});
FORM.addEventListener("submit", (event) => event.preventDefault());
FORM.addEventListener("reset", () => {
  byId("designs").ariaBusy = "true";
  // The fields are as they were only when this event is over.
  setTimeout(() => {
    settle(Number(FORM.elements.setting.value));
    update();
  });
});
for (const id of ["x-axis", "y-axis"]) byId(id).addEventListener("input", () => drawPlane(shown));

const redraw = watchCharts();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  drawPlane(shown);
  redraw();
});
addEventListener("hashchange", follow);

update();
follow();
document.documentElement.dataset.ready = "true";
