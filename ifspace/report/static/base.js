"use strict";

// --- small helpers: elements, numbers, formulas ---

const SVG = "http://www.w3.org/2000/svg";

function attach(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value);
    }
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const el = (tag, attributes, ...children) =>
  attach(document.createElement(tag), attributes, children);

const svg = (tag, attributes, ...children) =>
  attach(document.createElementNS(SVG, tag), attributes, children);

const byId = (id) => document.getElementById(id);

const whole = (value) => Math.round(value).toLocaleString("en-US");

// A block as nodes: where there is no room, it goes on in a new line after a layer.
const foldable = (block) =>
  block.split(/(?<=\+)/).flatMap((part, n) => (n ? [el("wbr", {}), part] : [part]));

// A time with three digits that count.
function amount(value) {
  if (value === null || value === undefined) return "";
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Number(value.toExponential(2).split("e")[1]));
  return value.toLocaleString("en-US", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

// A part of the reference as a reader compares it: 1/27.
function share(ratio) {
  if (!(ratio > 0 && ratio < 2 / 3)) return ratio.toFixed(2);
  const inverse = 1 / ratio;
  return inverse < 10 ? `1/${inverse.toFixed(1).replace(/\.0$/, "")}` : `1/${Math.round(inverse)}`;
}

// "C**2/g_1 <= Min(C, F)" with raised powers, lowered numbers and signs.
function formula(text) {
  const said = text
    .replace(/<=/g, "≤")
    .replace(/>=/g, "≥")
    .replace(/Min\(/g, "min(")
    .replace(/(?<!\*)\*(?!\*)/g, "·");
  const parts = said.split(/(\*\*\d+|_\d+)/);
  const nodes = parts.map((part) => {
    if (part.startsWith("**")) return el("sup", {}, part.slice(2));
    return /^_\d+$/.test(part) ? el("sub", {}, part.slice(1)) : part;
  });
  return el("span", { class: "formula" }, nodes);
}

const square = (side, dims) => (dims === 1 ? `${side}` : `${side}×${side}`);

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // An older way, for pages that are opened as files.
    const area = el("textarea", { class: "offscreen", readonly: true });
    area.value = text;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
