// The table of all windows: sorted by any column, filtered by name as the list at the left is, and exported.

import { $, attribute, h, level, named, rows, shown, text } from "./dom.js";
import * as fmt from "./format.js";
import { download } from "./live.js";

const WEIGHT = { critical: 5, high: 4, blind: 3, warming: 2, ok: 1, off: 0 };
/** With more windows than this, the table is drawn less often. */
const MANY = 100;
const SLOW_MS = 5_000;

/** The columns: name, title, what is compared, what is shown, and whether it is a number. */
const COLUMNS = [
  ["name", "Window", (w) => w.name, (w) => w.name, false],
  ["level", "Level", (w) => WEIGHT[fmt.levelOf(w)], null, false],
  ["mode", "Mode", (w) => w.mode, (w) => w.mode, false],
  ["pressure", "Pressure", (w) => w.pressure, (w) => fmt.ratio(w.pressure), true],
  ["coverage", "Coverage", (w) => w.coverage, (w) => fmt.percent(w.coverage), true],
  ["entries", "Ids", (w) => w.entries, (w) => fmt.count(w.entries), true],
  ["capacity", "Capacity", (w) => w.capacity, (w) => fmt.count(w.capacity), true],
  ["ttl", "TTL", (w) => w.ttl_seconds, (w) => fmt.span(w.ttl_seconds), true],
  ["fresh", "Fresh", (w) => w.rates.fresh, (w) => fmt.rate(w.rates.fresh), true],
  ["duplicate", "Duplicate", (w) => w.rates.duplicate, (w) => fmt.rate(w.rates.duplicate), true],
  ["escaped", "Escaped", (w) => w.escaped_duplicates, (w) => fmt.count(w.escaped_duplicates), true],
  ["memory", "Memory", (w) => w.bytes, (w) => fmt.bytes(w.bytes), true],
];

/** The column that the table is sorted by; null: in the order of the configuration. */
let by = null;
let descending = false;
let visible = false;
let drawn = 0;
let last = null;

const address = ({ name }) => `#/windows/${encodeURIComponent(name)}`;

function compare([, , value], a, b) {
  const [x, y] = [value(a), value(b)];
  // What is not known comes last, in either order.
  const unknown = (v) => v === null || v === undefined;
  if (unknown(x) || unknown(y)) return unknown(x) - unknown(y);
  const order = typeof x === "string" ? x.localeCompare(y) : x - y;
  return descending ? -order : order;
}

function row(window) {
  return h("tr", {}, ...COLUMNS.map(([name, title, , show, isNumber]) => {
    const cell = h("td", { class: isNumber ? "number" : null, "data-label": title });
    if (name === "name") cell.append(h("a", { href: address(window) }, named(window.name)));
    else if (show === null) {
      const word = h("span", { class: "level" });
      level(word, fmt.levelOf(window));
      cell.append(word);
    } else cell.append(show(window));
    return cell;
  }));
}

function draw() {
  if (last === null) return;
  drawn = Date.now();
  const column = COLUMNS.find(([name]) => name === by);
  const windows = column ? last.toSorted((a, b) => compare(column, a, b)) : last;
  rows($("#all-list tbody"), windows, ({ name }) => name, row);
}

function sort(name, isNumber) {
  return () => {
    // The first click on a number shows the largest ones, the third one restores the order of the configuration.
    const first = isNumber || name === "level";
    if (by !== name) [by, descending] = [name, first];
    else if (descending === first) descending = !first;
    else by = null;
    for (const th of $("#all-list thead tr").children) {
      attribute(th, "aria-sort", th.dataset.column === by ? (descending ? "descending" : "ascending") : null);
    }
    draw();
  };
}

/** Shows these windows, if the table is in view. */
export function update(windows) {
  last = windows;
  shown($("#all"), windows.length > 0);
  text($("#all-words"), `${fmt.count(windows.length)} ${windows.length === 1 ? "window" : "windows"}`);
  if (visible && (windows.length <= MANY || Date.now() - drawn > SLOW_MS)) draw();
}

/** Makes the head of the table, and connects the buttons. Called once. */
export function begin() {
  const head = ([name, title, , , isNumber]) => {
    const button = h("button", { type: "button", class: "sort" }, title);
    button.addEventListener("click", sort(name, isNumber));
    return h("th", { scope: "col", class: isNumber ? "number" : null, "data-column": name }, button);
  };
  $("#all-list thead tr").replaceChildren(...COLUMNS.map(head));
  new IntersectionObserver(([entry]) => {
    const came = entry.isIntersecting && !visible;
    visible = entry.isIntersecting;
    if (came) draw();
  }, { rootMargin: "200px" }).observe($("#all"));
  for (const button of document.querySelectorAll("[data-export]")) {
    button.addEventListener("click", async () => {
      const [path, name] = button.dataset.export.split(" ");
      const window = document.body.dataset.window ?? "";
      attribute(button, "disabled", "");
      const problem = await download(path.replace("{window}", encodeURIComponent(window)), name).catch((error) => error.message);
      attribute(button, "disabled", null);
      attribute(button, "title", problem ?? null);
    });
  }
}
