// --- the address: which blocks are shown, and which one is open ---

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // no address that this page wrote, so no block either
  }
}

// What the filters, the axes and the order are, as names and texts; what is as in the beginning is
// left out. `main` fills it in.
const ADDRESS = { filters: () => [] };

function setAddress(design) {
  const parts = ADDRESS.filters().map(([name, text]) => `${name}=${encodeURIComponent(text)}`);
  if (design) parts.push(`block=${design.setting}:${encodeURIComponent(design.candidate)}`);
  const hash = parts.length ? `#${parts.join("&")}` : "";
  history.replaceState(null, "", location.pathname + location.search + hash);
}

function filtersOfAddress() {
  const pairs = location.hash.slice(1).split("&").map((part) => part.split("="));
  return new Map(pairs.filter(([name, text]) => name !== "block" && text !== undefined)
    .map(([name, ...texts]) => [name, decoded(texts.join("="))]));
}
