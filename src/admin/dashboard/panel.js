// Shows one window's facts. It reads a window as the API returns it, and writes text and charts. It changes no setting.

import * as charts from "./charts.js";
import { $, $$, attribute, h, level, named, rows, shown, text } from "./dom.js";
import * as fmt from "./format.js";
import * as store from "./store.js";

/** The causes of eviction in display order. The first two evict ids before their TTL is over. */
const CAUSES = ["capacity", "resize", "expired", "forget", "flush", "republished", "superseded"];
const EARLY = new Set(["capacity", "resize"]);

const cause = (window, name) => window.evictions[name] ?? 0;
const evictedEarly = (window) => cause(window, "capacity") + cause(window, "resize");
/** Returns true if more duplicates have escaped than could be counted. */
const isSampled = (window) => window.escaped_duplicates_about > window.escaped_duplicates * 1.01;
const judged = ({ publishes }) => publishes.fresh + publishes.duplicate + (publishes.republished ?? 0);
const silent = (window) => judged(window) + window.publishes.no_id + window.publishes.bypassed === 0;

/** The text of each `data-show` element. */
const SHOW = {
  name: (w) => w.name,
  pressure: (w) => fmt.ratio(w.pressure),
  coverage: (w) => fmt.percent(w.coverage),
  remembered: (w) =>
    w.warming_seconds > 0
      ? `It is younger than its TTL: warm in ${fmt.span(Math.ceil(w.warming_seconds))}. Duplicates of what was published before get through, and can't be counted.`
      : w.coverage < 1
      ? `Ids are remembered for ${fmt.span(w.effective_seconds)} of ${fmt.span(w.ttl_seconds)}.`
      : `Ids are remembered for the full ${fmt.span(w.ttl_seconds)}.`,
  escaped_duplicates: (w) => (isSampled(w) ? `≥ ${fmt.count(w.escaped_duplicates)}` : fmt.count(w.escaped_duplicates)),
  escaped_about: (w) => (isSampled(w) ? `escaped duplicates, about ${fmt.count(w.escaped_duplicates_about)}` : "escaped duplicates"),
  missing: (w) => {
    const { share, headers } = w.missing_ids ?? { share: null, headers: [] };
    if (!(share > 0)) return "";
    const instead = headers.map((header) => `${fmt.percent(header.share)} have ${fmt.visible(header.name)}`).join(", ");
    return `${fmt.percent(share)} of the publishes of the last minutes carry no id: their duplicates get through.${instead ? ` Of them, ${instead}.` : ""}`;
  },
  escaped_now: (w) =>
    w.warming_seconds > 0 && w.escaped_duplicates === 0
      ? "Duplicates of what was published before it began can't be counted."
      : w.escaped_duplicates === 0
      ? "No duplicate got through because its id had been evicted."
      : `Duplicates that got through because their id had been evicted: ${fmt.rate(w.rates.escaped)} now.`,
  early: (w) => `${fmt.ids(evictedEarly(w))} evicted before their time, ${fmt.rate(w.rates.evicted_early)} now.`,
  ghost: (w) => {
    const lost = w.ghost.dropped > 0 ? ` ${fmt.ids(w.ghost.dropped, "evicted ")} found no room: what they let through is estimated.` : "";
    return w.ghost.keys > 0
      ? `Counted by mistake: at most ${fmt.oneIn(w.ghost.false_positive_rate)} fresh publishes.${lost}`
      : lost.trim();
  },
  recommended_capacity: (w) => (w.recommended_capacity === null ? "Not known yet" : fmt.count(w.recommended_capacity)),
  recommended_unit: (w) => (w.recommended_capacity === null ? "" : w.recommended_capacity === 1 ? "id" : "ids"),
  recommended_words: (w) => {
    if (w.recommended_capacity === null) {
      return w.recommended_from > 0
        ? `The traffic was seen for ${fmt.percent(w.recommended_from)} of a TTL. A recommendation needs a whole one.`
        : "There was no traffic to judge by.";
    }
    if (w.recommended_bound === "memory") return "The traffic needs more, but the machine has no memory for it. Ask for a shorter TTL.";
    if (w.recommended_bound === "maximum") return "The traffic needs more, but no window can be larger. Ask for a shorter TTL.";
    if (w.auto) return `The capacity follows by itself; it is ${fmt.count(w.capacity)} now.`;
    return w.capacity >= w.recommended_capacity
      ? `The present capacity of ${fmt.count(w.capacity)} is enough.`
      : `The present capacity is ${fmt.count(w.capacity)}.`;
  },
  recommended_bytes: (w) => {
    const each = `${fmt.bytes(w.bytes)} in use, about ${fmt.bytes(w.bytes_per_id)} an id.`;
    return w.recommended_bytes === null ? each : `That takes ${fmt.bytes(w.recommended_bytes)} when full; ${each}`;
  },
  resizing: (w) => (w.resizing ? `It shrinks to ${fmt.ids(w.resizing.to)}: ${fmt.count(w.resizing.left)} more to forget.` : ""),
  rate_fresh: (w) => fmt.rate(w.rates.fresh),
  rate_duplicate: (w) => fmt.rate(w.rates.duplicate),
  rate_escaped: (w) => fmt.rate(w.rates.escaped),
  entries: (w) => fmt.count(w.entries),
  capacity: (w) => fmt.count(w.capacity),
  level_since: (w) => {
    const last = w.level_history.at(-1);
    if (w.mode === "off") return "";
    return last ? `${w.level} for ${fmt.span(Math.round(last.ago_seconds))}` : `${w.level} since the start`;
  },
  ages: (w) => {
    const { p1_seconds: p1, p50_seconds: p50 } = w.age_at_eviction;
    if (p50 === null) return evictedEarly(w) > 0 ? "Since the start; none lately." : "";
    return `Lately half were at least ${fmt.span(p50)} old, 99 % at least ${fmt.span(p1)}.`;
  },
  what_if: (w) => {
    const { points, sample_rate: share, sampled } = w.what_if;
    if (points.length < 2) return "";
    const present = points.reduce((a, b) => (Math.abs(b.factor - 1) < Math.abs(a.factor - 1) ? b : a));
    const most = points.at(-1);
    const more = `${fmt.percent(present.caught)} of publishes now, ${fmt.percent(most.caught)} with ${most.factor} × the ids`;
    return `Caught as duplicates: ${more}. From ${fmt.count(sampled)} ${sampled === 1 ? "publish" : "publishes"}, a ${fmt.percent(share)} sample.`;
  },
};

/** Writes the one line that answers "Is it large enough?". */
function verdict(window) {
  if (window.mode === "off") return ["off", "Nothing is judged: the mode is off."];
  if (silent(window)) return ["none", "No publishes yet."];
  switch (window.level) {
    case "critical":
      return ["critical", "No. Ids are forgotten before their time."];
    case "warming":
      return ["warming", `Not known yet. It is warm in ${fmt.span(Math.ceil(window.warming_seconds))}.`];
    case "blind":
      return ["blind", `It sees ${fmt.percent(1 - window.missing_ids.share)} of the publishes: the others carry no id.`];
    case "high":
      return ["high", "Barely. It is nearly full of ids that are still due."];
    default:
      return ["ok", "Yes. Every id is remembered as long as it should be."];
  }
}

/** Returns true if the recommended capacity is worth trying. A capacity up to 25 % above it is fine as it is. */
const isWorthTrying = ({ recommended_capacity: recommended, capacity, auto }) =>
  recommended !== null && !auto && (capacity < recommended || capacity > recommended * 1.25);

function meter(element, value, most, words) {
  const fill = $(".fill", element);
  const share = Math.min(1, Math.max(0, value / most));
  fill.style.width = `${(share * 100).toFixed(1)}%`;
  attribute(element, "aria-valuenow", Math.min(value, most).toFixed(3));
  attribute(element, "aria-valuetext", words);
}

const tag = (name, value) => h("li", {}, h("span", {}, `${name} `), named(fmt.visible(value), "value"));

function tags(window) {
  const all = [
    ["vhost", window.vhost],
    ...(window.judges === "deliveries" ? [["guards queue", window.queue]] : [["exchange", window.exchange]]),
    ["id", window.id],
    ...(window.judges === "deliveries" ? [] : [["scope", window.scope]]),
    ["engine", window.engine],
    ["mode", window.mode],
    ["TTL", fmt.span(window.ttl_seconds)],
    ...(window.auto ? [["capacity", "auto"]] : []),
    ...(window.in_doubt === "keep" ? [["in doubt", "keep"]] : []),
    ...(window.missing_id === "reject" ? [["missing id", "reject"]] : []),
    ...((window.on_conflict ?? "drop") === "drop" ? [] : [["on conflict", window.on_conflict]]),
    ...((window.on_duplicate ?? "ack") === "ack" ? [] : [["on duplicate", window.on_duplicate]]),
    ...(window.duplicates_to == null ? [] : [["duplicates to", window.duplicates_to]]),
    ...(window.audit ? [["audit", "on"]] : []),
    ...(window.on_gap === undefined ? [] : [["on gap", window.on_gap], ["places", fmt.count(window.places)]]),
    ...(window.republish !== undefined && window.republish !== "connection" ? [["republish", window.republish]] : []),
    ...(window.confirms === "client-only" ? [["confirms", "client-only"]] : []),
    ...(window.refresh_on_duplicate ? [["refresh", "on duplicate"]] : []),
    ...(window.forward_to === null || window.forward_to === undefined ? [] : [["forwards to", window.forward_to]]),
  ];
  const key = JSON.stringify(all);
  const list = $("#tags");
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...all.map(([name, value]) => tag(name, value)));
}

/** Draws rows of a name, a bar and a number. Existing rows are updated in place. */
function evictions(window) {
  const host = $("#evictions");
  const most = Math.max(1, ...CAUSES.map((name) => cause(window, name)));
  if (host.childElementCount !== CAUSES.length) {
    const row = (name) =>
      h("div", { class: `bar-row ${EARLY.has(name) ? "early" : "due"}`, "data-cause": name },
        h("span", { class: "name" }, name), h("span", { class: "track", "aria-hidden": "true" }, h("span", { class: "fill" })),
        h("output", { "data-fact": `evictions.${name}` }));
    host.replaceChildren(...CAUSES.map(row));
  }
  for (const [index, name] of CAUSES.entries()) {
    const row = host.children[index];
    const value = cause(window, name);
    text($("output", row), fmt.count(value));
    $(".fill", row).style.width = value === 0 ? "0" : `max(2px, ${((value / most) * 100).toFixed(1)}%)`;
  }
}

/** What publishers of duplicates were told, in a window that tells them more than an ack. */
function told(window) {
  const told = Object.entries(window.told ?? {}).filter(([, value]) => value > 0);
  const sum = told.reduce((sum, [, value]) => sum + value, 0);
  const names = told.map(([name, n]) => `${name.replaceAll("_", " ")} ${fmt.count(n)}`).join(", ");
  return (window.on_duplicate ?? "ack") === "ack" && sum === 0 ? [] : [["told", "Told their publisher", fmt.count(sum), names]];
}

function counts(window) {
  const { publishes, distinct } = window;
  const forgotten = Object.values(window.forgotten).reduce((sum, value) => sum + value, 0);
  const why = Object.entries(window.forgotten).filter(([, value]) => value > 0);
  const rows = [
    ["publishes.fresh", "Fresh, forwarded", fmt.count(publishes.fresh)],
    ["publishes.duplicate", window.mode === "observe" ? "Duplicates, forwarded" : "Duplicates, taken out", fmt.count(publishes.duplicate)],
    ["hit_ratio", "Share of duplicates", window.hit_ratio === null ? fmt.NONE : fmt.percent(window.hit_ratio)],
    ["conflicts", "Same id, other content", fmt.count(window.conflicts ?? 0),
      publishes.duplicate > 0 ? `${fmt.percent((window.conflicts ?? 0) / publishes.duplicate)} of the duplicates` : ""],
    ["uncompared", "Too large to compare", fmt.count(window.uncompared ?? 0)],
    ...told(window),
    ["publishes.in_flight", "Had to wait in flight", fmt.count(publishes.in_flight)],
    ["in_flight", "In flight now", fmt.count(window.in_flight)],
    ["publishes.no_id", "Without an id", fmt.count(publishes.no_id)],
    ["publishes.bypassed", "Bypassed", fmt.count(publishes.bypassed)],
    ["publishes.republished", "Republished", fmt.count(publishes.republished ?? 0)],
    ["commits", "Stored by the broker", fmt.count(window.commits)],
    ["commits_in_doubt", "Kept in doubt", fmt.count(window.commits_in_doubt)],
    ["forgotten", "Not stored, forgotten", fmt.count(forgotten), why.map(([name, n]) => `${name} ${fmt.count(n)}`).join(", ")],
    ["promoted", "Waiters promoted", fmt.count(window.promoted)],
    ["takeovers", "Waiters that took over", fmt.count(window.takeovers ?? 0)],
    ["refused", "Waiters refused", fmt.count(window.refused)],
    ["distinct", "Distinct ids", distinct.seconds > 0 ? `≈ ${fmt.count(distinct.ids)} in ${fmt.span(distinct.seconds)}` : fmt.NONE],
  ];
  const list = $("#counts");
  if (list.childElementCount !== rows.length) {
    list.replaceChildren(...rows.map(([fact]) => h("div", {}, h("dt"), h("dd", { "data-fact": fact }))));
  }
  for (const [index, [, name, value, detail]] of rows.entries()) {
    const [dt, dd] = list.children[index].children;
    text(dt, name);
    text(dd, value);
    attribute(dd, "title", detail || null);
  }
}

function scopes(window) {
  const top = window.top_scopes;
  shown($("#no-scopes"), top.length === 0);
  shown($("#scopes"), top.length > 0);
  const most = Math.max(1, ...top.map(({ fresh }) => fresh));
  const name = (label, value, none) =>
    h("td", { "data-label": label }, named(value === "" ? none : fmt.visible(value), value === "" ? "name quiet" : "name"));
  const key = ({ vhost, exchange, routing_key }) => JSON.stringify([vhost, exchange, routing_key]);
  rows($("#scopes tbody"), top, key, ({ vhost, exchange, routing_key, fresh, error }) => {
    const fill = h("span", { class: "fill" });
    fill.style.width = `${((fresh / most) * 100).toFixed(1)}%`;
    const amount = h("span", {}, error > 0 ? `${fmt.count(fresh)} (−${fmt.count(error)})` : fmt.count(fresh));
    return h("tr", {}, name("Vhost", vhost, "(empty)"), name("Exchange", exchange, "(default)"), name("Routing key", routing_key, "(empty)"),
      h("td", { class: "number", "data-label": "Fresh, lately" }, h("span", { class: "track", "aria-hidden": "true" }, fill), amount));
  });
}

/** Returns the level over time as `[{from, to, level}]`, from the changes of level and the present level. */
function strip(window, now, seconds) {
  const begin = now - seconds * 1000;
  const changes = window.level_history.map(({ ago_seconds, level: to }) => ({ at: now - ago_seconds * 1000, to }));
  const stretches = [];
  // Before the first known change, assume the level that every window starts with.
  let [from, current] = [begin, changes.length > 0 && changes[0].to === "ok" ? changes[0].to : "ok"];
  for (const { at, to } of changes) {
    if (at > from) stretches.push({ from, to: at, level: current });
    [from, current] = [Math.max(begin, at), to];
  }
  stretches.push({ from, to: now, level: window.level });
  return stretches;
}

function levelChanges(window, now) {
  const list = $("#level-history ol");
  const recent = window.level_history.slice(-12).reverse();
  shown($("#level-history"), recent.length > 0);
  // Round to whole seconds: otherwise small differences between the clocks would move a change back and forth.
  const key = recent.map(({ ago_seconds, level: to }) => `${fmt.time(now - Math.round(ago_seconds) * 1000)} ${to}`);
  if (list.dataset.count === `${window.name} ${recent.length}`) return;
  list.dataset.count = `${window.name} ${recent.length}`;
  list.replaceChildren(...recent.map(({ level: to }, index) => {
    const word = h("span", { class: "level" });
    level(word, to);
    return h("li", {}, h("time", {}, key[index].split(" ")[0]), " ", word);
  }));
}

function draw(window, history, now, most) {
  const { name } = window;
  const seconds = history.seconds(name, now, most);
  const points = (key) => history.points(name, key, now, seconds);
  const base = { now, seconds };
  charts.lines($("#c-rates"), {
    ...base,
    series: [
      { name: "fresh", cls: "fresh", points: points("fresh") },
      { name: "duplicate", cls: "duplicate", points: points("duplicate") },
      { name: "escaped", cls: "escaped", points: points("escaped") },
    ],
    least: 0.03,
    format: fmt.compact,
    words: `Publishes per second over ${fmt.span(seconds)}: now fresh ${fmt.rate(window.rates.fresh)}, duplicate ${fmt.rate(window.rates.duplicate)}, escaped ${fmt.rate(window.rates.escaped)}`,
  });
  charts.lines($("#c-pressure"), {
    ...base,
    series: [{ name: "pressure", cls: "pressure", points: points("pressure") }],
    marks: [{ value: 1, words: "too small above 1", cls: "critical" }, { value: 0.8, words: "high from 0.8", cls: "high" }],
    strip: strip(window, now, seconds),
    area: true,
    format: (value) => (value === 0 ? "0" : fmt.ratio(value)),
    words: `Pressure over ${fmt.span(seconds)}: now ${fmt.ratio(window.pressure)}, level ${window.level}`,
  });
  const marks = [{ value: window.capacity, words: "capacity", cls: "capacity" }];
  if (window.recommended_capacity !== null) marks.push({ value: window.recommended_capacity, words: "recommended", cls: "recommended" });
  charts.lines($("#c-entries"), {
    ...base,
    series: [{ name: "ids", cls: "entries", points: points("entries") }],
    marks,
    area: true,
    format: fmt.compact,
    words: `Ids remembered over ${fmt.span(seconds)}: now ${fmt.count(window.entries)} of ${fmt.count(window.capacity)}`,
  });
  const { p50_seconds: p50, buckets } = window.age_at_eviction;
  charts.ages($("#c-ages"), buckets, window.ttl_seconds,
    `Ages of ids at early eviction, ${fmt.count(evictedEarly(window))} in all; lately half were at least ${fmt.span(p50)} old; the TTL is ${fmt.span(window.ttl_seconds)}`);
  charts.whatIf($("#c-what-if"), window.what_if.points, window.capacity, window.recommended_capacity, SHOW.what_if(window));
}

/** Updates the page with this window. Charts go back for `most` seconds at most. */
export function show(window, history, now, most) {
  for (const element of $$("[data-show]", $("#window"))) text(element, SHOW[element.dataset.show](window));
  attribute($("#window .title [data-show=name]"), "title", window.name);
  level($("#window .title .level"), fmt.levelOf(window));
  const [kind, words] = verdict(window);
  attribute($("#verdict"), "data-verdict", kind);
  text($("#verdict"), words);
  attribute($("#pressure-meter"), "data-level", window.level);
  attribute($("#coverage-meter"), "data-level", window.coverage >= 1 ? "ok" : window.warming_seconds > 0 ? "warming" : "critical");
  meter($("#pressure-meter"), window.pressure, 2, `${fmt.ratio(window.pressure)}, level ${window.level}`);
  meter($("#coverage-meter"), window.coverage, 1, fmt.percent(window.coverage));
  shown($("#try-recommended"), isWorthTrying(window));
  store.show(window);
  tags(window);
  evictions(window);
  counts(window);
  scopes(window);
  levelChanges(window, now);
  draw(window, history, now, most);
}
