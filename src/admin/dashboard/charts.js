// Draws charts as SVG at the size in which they are shown, so that text and lines are never scaled.
//
// A chart is drawn again from its data each time. Only the position of the pointer is kept. Colours come from classes.
// The numbers of each chart are also beside it as text and in its label, so the page can be read without the charts.

import { $, attribute, h, s, text } from "./dom.js";
import * as fmt from "./format.js";

const HEIGHT = 148;
const EDGE = { top: 12, right: 10, bottom: 18, left: 46 };

/** Returns an empty canvas in this element, as wide as the element. */
function canvas(host, label, height = HEIGHT) {
  const width = Math.max(160, host.clientWidth);
  let svg = host.firstElementChild;
  if (!svg || svg.tagName !== "svg") {
    svg = s("svg", { "aria-hidden": "true" });
    host.replaceChildren(svg);
  }
  attribute(svg, "viewBox", `0 0 ${width} ${height}`);
  attribute(svg, "width", width);
  attribute(svg, "height", height);
  attribute(host, "aria-label", label);
  svg.replaceChildren();
  return { svg, width, height, right: width - EDGE.right, bottom: height - EDGE.bottom };
}

/** Shows a message in place of a chart that has nothing to draw. */
export function empty(host, message) {
  if (host.firstElementChild?.tagName !== "P") host.replaceChildren(h("p", { class: "empty" }, message));
  else text(host.firstElementChild, message);
  attribute(host, "aria-label", message);
}

const label = (x, y, words, attributes = {}) => s("text", { x, y, ...attributes }, words);
const line = (x1, y1, x2, y2, cls) => s("line", { x1, y1, x2, y2, class: cls });

/** Returns the smallest of 1, 2, 2.5, 5 × 10ⁿ that is at least `least`. */
function niceStep(least) {
  const base = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 2.5, 5, 10].map((n) => n * base).find((step) => step >= least * 0.999);
}

/** Draws horizontal lines with their values. Returns the function from a value to its height. */
function yAxis({ svg, right, bottom }, most, format) {
  const step = niceStep((most > 0 ? most : 1) / 3);
  const top = step * Math.max(1, Math.ceil((most / step) * 0.999));
  const y = (value) => bottom - (Math.min(value, top) / top) * (bottom - EDGE.top);
  for (let value = 0; value <= top * 1.001; value += step) {
    svg.append(line(EDGE.left, y(value), right, y(value), "grid"));
    svg.append(label(EDGE.left - 6, y(value) + 3.5, format(value), { "text-anchor": "end" }));
  }
  return y;
}

/** Draws the time axis. Returns the function from a moment to its horizontal position. */
function timeAxis({ svg, right, bottom, height }, now, seconds) {
  const x = (t) => right - ((now - t) / 1000 / seconds) * (right - EDGE.left);
  for (const share of [1, 0.5, 0]) {
    const at = right - share * (right - EDGE.left);
    const anchor = share === 1 ? "start" : share === 0 ? "end" : "middle";
    const words = share === 0 ? "now" : `−${fmt.span(seconds * share)}`;
    svg.append(line(at, bottom, at, bottom + 3, "tick"), label(at, height - 4, words, { "text-anchor": anchor }));
  }
  return x;
}

/** Returns a path through the points, with a gap wherever no event arrived for a while. */
function path(points, x, y) {
  let before = -Infinity;
  return points
    .map(({ t, v, gap }) => {
      const begins = t - before > gap;
      before = t;
      return `${begins ? "M" : "L"}${x(t).toFixed(1)} ${y(v).toFixed(1)}`;
    })
    .join("");
}

/**
 * Draws lines across the chart, each with its label at the right, above the line. If the next line is close above, the label goes
 * below, where there is room for that. A label that is still too close to another one goes to the left.
 */
function across({ svg, right, bottom }, marks, y) {
  let before = Infinity;
  const sorted = marks.toSorted((a, b) => a.value - b.value);
  for (const [index, { value, words, cls }] of sorted.entries()) {
    const height = y(value);
    const above = sorted[index + 1] === undefined ? Infinity : height - y(sorted[index + 1].value);
    const below = above < 15 && height + 13 < bottom;
    svg.append(line(EDGE.left, height, right, height, `mark ${cls}`));
    if (words === "") continue;
    const foot = height > EDGE.top + 12 && !below ? height - 3 : height + 11;
    const near = before - foot < 13;
    const [x, anchor] = near ? [EDGE.left + 4, "start"] : [right - 2, "end"];
    svg.append(label(x, foot, words, { "text-anchor": anchor, class: `note ${cls}` }));
    before = near ? before : foot;
  }
}

const pointers = new WeakMap();

function followPointer(host, redraw) {
  if (pointers.has(host)) {
    pointers.get(host).redraw = redraw;
    return pointers.get(host);
  }
  const state = { x: null, redraw };
  pointers.set(host, state);
  host.addEventListener("pointermove", (event) => {
    state.x = event.clientX - host.getBoundingClientRect().left;
    state.redraw();
  });
  host.addEventListener("pointerleave", () => {
    state.x = null;
    state.redraw();
  });
  return state;
}

/**
 * Draws lines over time. `series` is `[{name, cls, points: [{t, v}]}]`. `marks` is `[{value, words, cls}]`: horizontal
 * lines across the chart. `strip` is `[{from, to, level}]`: a bar of levels below the lines. `area` fills the area below
 * the first series.
 */
export function lines(host, options) {
  const { series, marks = [], strip = [], area = false, now, seconds, format, words, least = 0 } = options;
  const box = canvas(host, words);
  if (strip.length > 0) box.bottom -= 9;
  const values = series.flatMap(({ points }) => points.map(({ v }) => v));
  const most = Math.max(least, ...marks.map(({ value }) => value), ...values);
  const y = yAxis(box, most, format);
  const axis = { ...box, bottom: box.height - EDGE.bottom };
  const x = timeAxis(axis, now, seconds);
  across(box, marks, y);
  for (const [index, { points, cls }] of series.entries()) {
    if (points.length === 0) continue;
    const d = path(points, x, y);
    if (area && index === 0) {
      const feet = `L${x(points.at(-1).t).toFixed(1)} ${box.bottom}L${x(points[0].t).toFixed(1)} ${box.bottom}Z`;
      box.svg.append(s("path", { d: d.replace(/(?!^)M/g, "L") + feet, class: `area ${cls}` }));
    }
    box.svg.append(s("path", { d, class: `line ${cls}` }));
  }
  for (const { from, to, level } of strip) {
    const left = Math.max(EDGE.left, x(from));
    const width = Math.max(0, x(to) - left);
    box.svg.append(s("rect", { x: left, y: box.bottom + 3, width, height: 5, class: `level-${level}` }));
  }
  const pointer = followPointer(host, () => lines(host, options));
  readout(host, box, pointer.x, x, series, format, now);
}

/** Shows the values at the pointer. */
function readout(host, box, at, x, series, format, now) {
  let words = "";
  if (at !== null && at >= EDGE.left && at <= box.right) {
    const nearest = (points) =>
      points.reduce((best, point) => (Math.abs(x(point.t) - at) < Math.abs(x(best.t) - at) ? point : best));
    const told = series.filter(({ points }) => points.length > 0);
    if (told.length > 0) {
      const { t } = nearest(told[0].points);
      box.svg.append(line(x(t), EDGE.top, x(t), box.bottom, "cursor"));
      const values = told.map(({ name, points }) => `${name} ${format(nearest(points).v)}`);
      words = [`${fmt.span(Math.max(0, Math.round((now - t) / 1000)))} ago`, ...values].join(" · ");
    }
  }
  let element = $(".readout", host);
  if (!element) {
    element = h("p", { class: "readout" });
    host.append(element);
  }
  text(element, words);
}

/**
 * Draws how old ids were when they were evicted early, compared with the TTL. There is one bar per bucket, so the axis is
 * as logarithmic as the buckets are.
 */
export function ages(host, buckets, ttl, words) {
  const used = buckets.flatMap(({ count }, index) => (count > 0 ? [index] : []));
  if (used.length === 0) return empty(host, "No id was evicted before its time");
  const bound = (index) => (index < 0 ? 0 : (buckets[index].le ?? Infinity));
  const holdsTtl = buckets.findIndex((_, index) => bound(index) >= ttl);
  const first = Math.max(0, Math.min(used[0], holdsTtl < 0 ? used[0] : holdsTtl) - 1);
  const last = Math.min(buckets.length - 1, Math.max(used.at(-1), holdsTtl) + 1);
  const range = buckets.slice(first, last + 1);
  const box = canvas(host, words);
  const y = yAxis(box, Math.max(...range.map(({ count }) => count)), fmt.compact);
  const slot = (box.right - EDGE.left) / range.length;
  for (const [index, { count, le }] of range.entries()) {
    const from = bound(first + index - 1);
    const height = count > 0 ? Math.max(1.5, box.bottom - y(count)) : 0;
    const title = `${fmt.span(from)} to ${le === null ? "any age" : fmt.span(le)}: ${fmt.count(count)}`;
    const attributes = { x: EDGE.left + index * slot + 1, y: box.bottom - height, width: Math.max(1, slot - 2), height };
    box.svg.append(s("rect", { ...attributes, class: "bar early" }, s("title", {}, title)));
  }
  // Returns the position of a duration. Inside a bucket the scale is logarithmic, as the buckets themselves are.
  const place = (seconds) => {
    const index = range.findIndex((_, i) => bound(first + i) >= seconds);
    const [low, high] = [bound(first + index - 1), bound(first + index)];
    const share = low > 0 && Number.isFinite(high) ? Math.log(seconds / low) / Math.log(high / low) : 0.5;
    return EDGE.left + (index + share) * slot;
  };
  ageLabels(box, range, first, slot, bound);
  if (holdsTtl < 0) return undefined;
  const at = place(ttl);
  box.svg.append(line(at, EDGE.top - 4, at, box.bottom, "mark ttl"));
  const left = at > (EDGE.left + box.right) / 2;
  const attributes = { "text-anchor": left ? "end" : "start", class: "note ttl" };
  box.svg.append(label(at + (left ? -4 : 4), EDGE.top + 4, `TTL ${fmt.span(ttl)}`, attributes));
  return undefined;
}

function ageLabels(box, range, first, slot, bound) {
  const every = Math.max(1, Math.ceil(60 / slot));
  for (let index = 0; index <= range.length; index += every) {
    const at = EDGE.left + index * slot;
    if (at > box.right - 24 || !Number.isFinite(bound(first + index - 1))) break;
    box.svg.append(line(at, box.bottom, at, box.bottom + 3, "tick"));
    box.svg.append(label(at, box.height - 4, fmt.spanShort(bound(first + index - 1)), { "text-anchor": "middle" }));
  }
}

/** Draws caught duplicates over capacity, with marks at the present and at the recommended capacity. */
export function whatIf(host, points, capacity, recommended, words) {
  if (points.length < 2) return empty(host, "Not enough traffic sampled yet");
  const box = canvas(host, words);
  const y = yAxis(box, Math.max(0.003, ...points.map(({ caught }) => caught)), fmt.percent);
  const [low, high] = [points[0].capacity, points.at(-1).capacity];
  const inset = 8;
  const share = (ids) => Math.log(Math.max(1, ids) / Math.max(1, low)) / Math.log(Math.max(2, high) / Math.max(1, low));
  const x = (ids) => EDGE.left + inset + Math.min(1, Math.max(0, share(ids))) * (box.right - EDGE.left - 2 * inset);
  const vertical = (ids, name, cls, row) => {
    const at = x(ids);
    const left = at > (EDGE.left + box.right) / 2;
    box.svg.append(line(at, EDGE.top - 4, at, box.bottom, `mark ${cls}`));
    const attributes = { "text-anchor": left ? "end" : "start", class: `note ${cls}` };
    box.svg.append(label(at + (left ? -4 : 4), box.bottom - 6 - 12 * row, name, attributes));
  };
  const near = recommended !== null && Math.abs(x(recommended) - x(capacity)) < 70;
  vertical(capacity, "now", "now", 0);
  const inside = recommended !== null && recommended >= low && recommended <= high;
  if (inside) vertical(recommended, "recommended", "recommended", near ? 1 : 0);
  const d = points.map(({ capacity: ids, caught }, i) => `${i ? "L" : "M"}${x(ids).toFixed(1)} ${y(caught).toFixed(1)}`);
  box.svg.append(s("path", { d: d.join(""), class: "line duplicate" }));
  for (const { factor, capacity: ids, caught, bytes } of points) {
    const title = `${fmt.ids(ids)} (× ${factor}): ${fmt.percent(caught)} caught, ${fmt.bytes(bytes)}`;
    box.svg.append(s("circle", { cx: x(ids), cy: y(caught), r: 3.5, class: "dot duplicate" }, s("title", {}, title)));
  }
  let free = -Infinity;
  for (const { capacity: ids } of points) {
    const at = x(ids);
    if (at - free < 44 || at > box.right - 12) continue;
    free = at;
    box.svg.append(label(at, box.height - 4, fmt.compact(ids), { "text-anchor": "middle" }));
  }
  return undefined;
}
