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
  // Latency where it was measured.
  const measured = times.find((time) => time.measured);
  options(byId("x-axis"), measures, measured ? measured.key : "layers");
  options(byId("y-axis"), measures, "params");
  const designs = DESIGNS.filter((each) => each.setting === setting && !each.baseline);
  for (const [name, value] of [["params", (d) => d.params], ["layers", (d) => d.layers]]) {
    const values = designs.map(value);
    FORM.elements[`${name}-low`].placeholder = values.length ? `${Math.min(...values)}` : "";
    FORM.elements[`${name}-high`].placeholder = values.length ? `${Math.max(...values)}` : "";
  }
}

// --- what is selected ---

const PICKED = new Set();
let framed = false; // whether it was selected by a frame in the plane

function pick(places, on) {
  for (const place of places) {
    if (on) PICKED.add(place);
    else PICKED.delete(place);
  }
  showPicked();
}

function pickInPlane(places, toggle) {
  if (toggle) {
    pick(places, !places.every((place) => PICKED.has(place)));
    return;
  }
  if (places === null && !framed) return;
  framed = places !== null && places.length > 0;
  PICKED.clear();
  byId("only").checked = framed;
  pick(places || [], true);
}

function showPicked() {
  const count = PICKED.size;
  if (!count) byId("only").checked = false;
  byId("picked").textContent = count ? `${whole(count)} selected` : "";
  byId("selection").hidden = count === 0;
  const few = count >= FEWEST && count <= MOST;
  byId("compare").disabled = !few;
  byId("compare").title = few ? "" : `from ${FEWEST} to ${MOST} blocks`;
  TABLE.pick(PICKED);
  PLANE.pick(PICKED);
  showTable();
  drawParallel();
}

const TABLE = new DesignTable(byId("designs"), byId("more"), openDesigns, pick);
const PLANE = new Plane(byId("plane"), byId("plane-said"), (places) =>
  openDesigns(places, byId("plane")), pickInPlane);
TABLE.onsort = () => setAddress(null);

// With "only these" the rows of what is selected, else all that pass the filters.
let listed = null;
function showTable() {
  const only = byId("only").checked;
  const designs = only ? shown.filter((design) => PICKED.has(design.place)) : shown;
  const same = listed && listed.length === designs.length &&
    listed.every((design, n) => design === designs[n]);
  if (!same) TABLE.show(designs, findMeasure(FORM.elements.time.value));
  listed = designs;
}

function drawParallel() {
  const place = byId("parallel");
  if (!place.closest("details").open) return;
  const times = timesAt(Number(FORM.elements.setting.value)).filter((time) => time.measured);
  const designs = shown.filter((design) => !design.baseline);
  place.replaceChildren(...(designs.length
    ? [parallel(designs, [...PLAIN, ...times.slice(0, 1)], PICKED, openDesigns)] : []));
}

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
  listed = null;
  showTable();
  drawPlane(shown);
  drawParallel();
  setAddress(null);
  byId("designs").hidden = shown.length === 0;
  byId("none").hidden = shown.length > 0;
  byId("designs").ariaBusy = "false";
}

// Shows what the address asks for; the status line goes on with what is wrong there, until the next
// filter.
function arrive() {
  const asked = location.hash;
  restore();
  update();
  history.replaceState(null, "", location.pathname + location.search + asked);
  const wrong = openFromAddress();
  if (wrong) byId("count").append(`. ${wrong}`);
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

// --- the filters in the address ---

const NUMBERS = ["layers", "params", "times"].flatMap((name) => [`${name}-low`, `${name}-high`]);

ADDRESS.filters = () => {
  const state = FORM.elements;
  const kinds = [...FORM.querySelectorAll("[name=kind]:checked")].map((box) => box.value);
  const axes = ["x-axis", "y-axis"].map((id) => [id, byId(id)]);
  const first = (select) => [...select.options].find((each) => each.defaultSelected) ||
    select.options[0];
  return [
    ["setting", state.setting.value === "0" ? "" : state.setting.value],
    ["text", state.text.value],
    ["shown", state.shown.value === "all" ? "" : state.shown.value],
    ["every", state.every.checked ? "yes" : ""],
    ["kinds", kinds.length === DATA.kinds.length ? "" : kinds.join(",") || "none"],
    ...NUMBERS.map((name) => [name, state[name].value]),
    ["time", state.time.selectedIndex > 0 ? state.time.value : ""],
    ...axes.map(([id, select]) => [id, select.value === first(select).value ? "" : select.value]),
    ["sort", TABLE.by === "params" && !TABLE.down ? "" : `${TABLE.down ? "-" : ""}${TABLE.by}`],
  ].filter(([, text]) => text);
};

// Sets the form as the address says; what it does not name is as in the beginning.
function restore() {
  const state = FORM.elements;
  const told = filtersOfAddress();
  const choose = (select, value) => {
    if (value !== undefined && [...select.options].some((each) => each.value === value)) {
      select.value = value;
    }
  };
  state.setting.value = "0";
  choose(state.setting, told.get("setting"));
  settle(Number(state.setting.value));
  state.text.value = told.get("text") || "";
  state.shown.value = "all";
  choose(state.shown, told.get("shown"));
  state.every.checked = told.get("every") === "yes";
  const kinds = told.has("kinds") ? told.get("kinds").split(",") : DATA.kinds;
  FORM.querySelectorAll("[name=kind]").forEach((box) => (box.checked = kinds.includes(box.value)));
  for (const name of NUMBERS) state[name].value = told.get(name) || "";
  choose(state.time, told.get("time"));
  for (const id of ["x-axis", "y-axis"]) choose(byId(id), told.get(id));
  const order = told.get("sort") || "params";
  [TABLE.by, TABLE.down] = [order.replace(/^-/, ""), order.startsWith("-")];
}

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
for (const id of ["x-axis", "y-axis"]) {
  byId(id).addEventListener("input", () => {
    drawPlane(shown);
    setAddress(null);
  });
}
byId("only").addEventListener("input", showTable);
byId("clear").addEventListener("click", () => pick([...PICKED], false));
byId("compare").addEventListener("click", () =>
  openCompared([...PICKED].map((place) => DESIGNS[place])));
byId("parallel").closest("details").addEventListener("toggle", drawParallel);
for (const [id, form, kind] of [["csv", csvOf, "text/csv"], ["json", jsonOf, "application/json"]]) {
  byId(`save-${id}`).addEventListener("click", () => {
    const columns = exportColumns(Number(FORM.elements.setting.value));
    download(`blocks.${id}`, form(TABLE.ordered, columns), kind);
  });
}

const redraw = watchCharts();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  drawPlane(shown);
  redraw();
});
// An address that was typed or followed; those of parts of the page have no filters.
addEventListener("hashchange", () => location.hash.includes("=") && arrive());

arrive();
document.documentElement.dataset.ready = "true";
