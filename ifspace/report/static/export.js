// --- what is shown as a file: CSV and JSON ---

// The columns of a file; those of times have the whole name of what was measured.
function exportColumns(setting) {
  const times = TIMES.filter(({ bench }) => samePlace(DATA.settings[setting], bench));
  return [
    ["block", (design) => design.block],
    ["layers", (design) => design.layers],
    ["params", (design) => design.params],
    ["macs_per_pixel", (design) => design.macs],
    ["activations_per_pixel", (design) => design.acts],
    ["least_fan_in", (design) => design.fan_in],
    ["pixels_seen", (design) => design.fields[design.fields.length - 1][0]],
    ["channels_seen", (design) => design.fields[design.fields.length - 1][1]],
    ["setting", (design) => design.of.name],
    ["notes", (design) => notes(design).join("; ")],
    ...times.map((time) => [fullName(time), time.value]),
  ];
}

function csvCell(value) {
  const text = value === null || value === undefined ? "" : `${value}`;
  return /[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

function csvOf(designs, columns) {
  const rows = [columns.map(([name]) => name),
    ...designs.map((design) => columns.map(([, value]) => value(design)))];
  return rows.map((row) => `${row.map(csvCell).join(",")}\n`).join("");
}

function jsonOf(designs, columns) {
  const records = designs.map((design) =>
    Object.fromEntries(columns.map(([name, value]) => [name, value(design)])));
  return `${JSON.stringify(records, null, 1)}\n`;
}

function download(name, text, kind) {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
