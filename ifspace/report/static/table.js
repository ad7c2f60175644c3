// --- the table of the catalogue ---

const FIRST_ROWS = 50;

function columnsOf(time) {
  const columns = [
    { key: "block", name: "block", sort: (design) => design.block,
      cell: (design) => foldable(design.block) },
    { key: "layers", name: "layers", sort: (design) => design.layers,
      cell: (design) => `${design.layers}`, right: true },
    { key: "params", name: "params", sort: (design) => design.params,
      cell: (design) => whole(design.params), right: true },
    { key: "ratio", name: "× CONV", sort: (design) => design.ratio,
      cell: (design) => share(design.ratio), right: true,
      title: "parameters over those of the convolution that it replaces" },
    { key: "macs", name: "MACs/px", sort: (design) => design.macs,
      cell: (design) => whole(design.macs), right: true },
    { key: "acts", name: "act/px", sort: (design) => design.acts,
      cell: (design) => whole(design.acts), right: true,
      title: "elements that its layers write per output pixel" },
    { key: "fan", name: "least fan-in", sort: (design) => design.fan_in,
      cell: (design) => whole(design.fan_in), right: true,
      title: "fewest channels that a filter of a channel-mixing layer reads" },
  ];
  if (time) {
    columns.push({ key: "time", name: time.name, folds: true, sort: (design) => time.value(design),
      cell: (design) => amount(time.value(design)), right: true, title: fullName(time) });
  }
  columns.push({ key: "notes", name: "notes", sort: (design) => notes(design).join("; "),
    cell: (design) => notes(design).join("; "), wide: true });
  return columns;
}

// One row can be reached by Tab; the arrows go on from there.
class DesignTable {
  constructor(place, more, open, pick) {
    Object.assign(this, { place, more, open, by: "params", down: false, most: FIRST_ROWS,
      picked: new Set() });
    this.body = el("tbody", {});
    this.head = el("tr", {});
    place.append(el("thead", {}, this.head), this.body);
    this.body.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("change", (event) => {
      pick([Number(event.target.closest("tr").dataset.place)], event.target.checked);
    });
    this.body.addEventListener("click", (event) => {
      if (event.target.closest("label")) return;
      const row = event.target.closest("tr");
      if (row) this.open([Number(row.dataset.place)], row.querySelector("button"));
    });
    more.addEventListener("click", () => {
      const from = this.most;
      this.most = Infinity;
      this.fill();
      this.focus(from);
    });
  }

  // Marks the rows of what is selected.
  pick(picked) {
    this.picked = picked;
    for (const row of this.body.rows) {
      const on = picked.has(Number(row.dataset.place));
      row.classList.toggle("picked", on);
      row.querySelector("input").checked = on;
    }
  }

  get ordered() {
    return sorted(this.designs, this.columns.find((each) => each.key === this.by), this.down);
  }

  show(designs, time) {
    this.designs = designs;
    this.columns = columnsOf(time);
    if (!this.columns.some((column) => column.key === this.by)) this.by = "params";
    this.most = FIRST_ROWS;
    this.heads();
    this.fill();
  }

  heads() {
    this.head.replaceChildren(
      ...this.columns.map((column) => {
        const on = column.key === this.by;
        const sort = on ? (this.down ? "descending" : "ascending") : null;
        const sign = on ? (this.down ? "▼" : "▲") : "";
        return el("th", { scope: "col", class: [column.right && "right", column.folds && "folds"].filter(Boolean).join(" ") || null,
          "aria-sort": sort },
          el("button", { type: "button", "data-sort": column.key, title: column.title,
            onclick: () => this.sortBy(column.key) }, column.name,
          el("span", { class: "way", "aria-hidden": "true" }, sign)));
      }),
    );
  }

  sortBy(key) {
    this.down = this.by === key && !this.down;
    this.by = key;
    this.heads();
    this.fill();
    this.head.querySelector(`[data-sort="${key}"]`).focus();
    this.onsort();
  }

  fill() {
    const ordered = this.ordered;
    const rows = ordered.slice(0, this.most).map((design, n) => {
      const [first, ...rest] = this.columns;
      return el("tr", { "data-place": design.place },
        el("th", { scope: "row" },
          el("label", { class: "pick", title: "select, to compare" },
            el("input", { type: "checkbox", tabindex: n ? -1 : 0,
              "aria-label": `select ${design.block}` })),
          el("button", { type: "button", tabindex: n ? -1 : 0 }, first.cell(design))),
        rest.map((each) =>
          el("td", { class: each.right ? "right" : each.wide ? "wide" : null },
            each.cell(design))));
    });
    this.body.replaceChildren(...rows);
    this.pick(this.picked);
    const left = ordered.length - rows.length;
    this.more.hidden = left <= 0;
    this.more.textContent = `Show ${whole(left)} more`;
  }

  focus(to) {
    const buttons = [...this.body.querySelectorAll("button")];
    if (!buttons.length) return;
    const button = buttons[Math.max(0, Math.min(to, buttons.length - 1))];
    this.body.querySelectorAll('[tabindex="0"]').forEach((each) => (each.tabIndex = -1));
    button.tabIndex = 0;
    button.closest("tr").querySelector("input").tabIndex = 0;
    button.focus();
  }

  key(event) {
    const rows = [...this.body.rows];
    const at = rows.indexOf(event.target.closest("tr"));
    const to = {
      ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10,
      Home: 0, End: rows.length - 1,
    }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.focus(to);
    }
  }
}
