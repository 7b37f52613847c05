// The page. It receives an event from the relay each second, keeps a history, and shows one window and the list of all.
//
//   live.js      talks to the relay: token, requests, event stream    history.js   keeps the last hour
//   panel.js     shows one window's facts, with charts.js             controls.js  changes settings, looks ids up, flushes
//   store.js     shows where it remembers beside memory               clients.js   lists client connections
//   upstreams.js lists the broker's nodes                             dom.js       changes the document
//   all.js       the table of all windows                            process.js   recent events, the log, the drain
//   format.js    writes numbers as text              drift.js      compares the configuration file with the relay

import * as all from "./all.js";
import * as clients from "./clients.js";
import * as controls from "./controls.js";
import * as drift from "./drift.js";
import { $, $$, announce, attribute, h, keyed, level, named, shown, text } from "./dom.js";
import * as fmt from "./format.js";
import { History } from "./history.js";
import { api, follow } from "./live.js";
import * as panel from "./panel.js";
import * as relay from "./process.js";
import * as upstreams from "./upstreams.js";

const LEVELS = ["critical", "high", "blind", "warming", "ok", "off"];
const WEIGHT = { critical: 4, high: 3, blind: 2, warming: 1, ok: 0, off: -1 };
const weight = (window) => WEIGHT[fmt.levelOf(window)];
/** With more windows than this, the list can be filtered and sorted. */
const MANY = 8;

const history = new History();
const levels = new Map();
let last = null;
let lostAt = null;
let lostWhy = null;

/** Returns the window that the page's address names, or the first one. */
function selected() {
  return last.windows.find((window) => address(window) === location.hash) ?? last.windows[0] ?? null;
}

const address = ({ name }) => `#/windows/${encodeURIComponent(name)}`;

function listItem(window) {
  return h("li", {}, h("a", { href: address(window) },
    h("span", { class: "head" }, named(window.name), h("small", { class: "quiet", "data-item": "mode" })), h("span", { class: "level" }),
    h("span", { class: "quiet", "data-item": "detail" }), h("span", { class: "quiet number", "data-item": "rate" })));
}

function list(windows, current) {
  const element = $("#windows ul");
  const many = windows.length > MANY;
  shown($("#windows .nav-tools"), many);
  const wanted = many ? $("#filter").value.trim().toLowerCase() : "";
  let visible = windows.filter(({ name }) => name.toLowerCase().includes(wanted));
  if (many && $("#pressed-first").checked) {
    visible = visible.toSorted((a, b) => weight(b) - weight(a) || b.pressure - a.pressure);
  }
  const key = JSON.stringify(visible.map(({ name }) => name));
  if (element.dataset.key !== key) {
    element.dataset.key = key;
    keyed(element, visible, ({ name }) => name, listItem);
    if (visible.length === 0) element.append(h("li", { class: "empty" }, "No window has that in its name"));
  }
  for (const [index, window] of visible.entries()) {
    const item = element.children[index].firstElementChild;
    attribute(item, "aria-current", window === current ? "true" : null);
    level($(".level", item), fmt.levelOf(window));
    text($("[data-item=mode]", item), window.mode === "observe" ? window.mode : "");
    text($("[data-item=detail]", item), `pressure ${fmt.ratio(window.pressure)}`);
    text($("[data-item=rate]", item), fmt.rate(window.rates.fresh + window.rates.duplicate));
  }
  const counts = LEVELS.map((name) => [name, windows.filter((w) => fmt.levelOf(w) === name).length]);
  text($("#levels"), counts.filter(([, n]) => n > 0).map(([name, n]) => `${n} ${name}`).join(" · "));
}

function vitals(status) {
  const set = (name, words) => text($(`[data-status="${name}"]`), words);
  set("version", status.version);
  set("upstream", upstreams.words(status));
  attribute($('[data-status="upstream"]'), "data-state", status.upstream.ok ? "good" : "bad");
  set("address", status.upstream.address);
  const { open, max, rejected } = status.connections;
  set("clients", `${fmt.count(open)} of ${fmt.count(max)}${rejected > 0 ? `, ${fmt.count(rejected)} rejected` : ""}`);
  const { resident_bytes: resident, budget_bytes: budget } = status.memory;
  set("memory", budget ? `${fmt.bytes(resident)} · budget ${fmt.bytes(budget)}` : fmt.bytes(resident));
  set("uptime", fmt.span(Math.floor(status.uptime_seconds)));
}

/** Shows the most important problems at the top of the page. */
function notices() {
  const found = [];
  if (lostAt !== null) found.push(["bad", `Disconnected since ${fmt.time(lostAt)}. What is shown is from then.${lostWhy ? ` ${lostWhy}` : ""}`]);
  if (last?.status.draining) found.push(["warn", "The relay is draining: it takes no new connections and will end."]);
  const chaos = last?.status.chaos;
  if (chaos) found.push(["warn", `A run of chaos is on: clients are cut and delayed on purpose. Seed ${chaos.seed}, started by ${chaos.by}; it ends within ${fmt.span(Math.max(60, Math.ceil(chaos.left_seconds / 60) * 60))}.`]);
  if (last && !last.status.upstream.ok) found.push(["bad", `The broker at ${last.status.upstream.address} does not answer: ${last.status.upstream.error ?? "no reason known"}`]);
  const nodes = last?.status.upstream.ok ? upstreams.down(last.status).map(({ address, error }) => `${address} (${error ?? "no reason known"})`) : [];
  if (nodes.length > 0) found.push(["warn", `${nodes.length === 1 ? "A node" : `${nodes.length} nodes`} of the broker ${nodes.length === 1 ? "does" : "do"} not answer; new connections go to the others: ${nodes.slice(0, 5).join(", ")}${nodes.length > 5 ? ", …" : ""}`]);
  const down = last?.windows.filter((window) => window.store && !window.store.up).map(({ name }) => name) ?? [];
  if (down.length > 0) found.push(["bad", `${down.length === 1 ? "A store is down. Look at window" : `${down.length} stores are down. Look at windows`} ${down.slice(0, 5).join(", ")}${down.length > 5 ? ", …" : ""}`]);
  if (document.body.dataset.mayChange === "false") found.push(["note", "This token may read and not change anything."]);
  const key = JSON.stringify(found);
  const host = $("#notices");
  if (host.dataset.key === key) return;
  host.dataset.key = key;
  host.replaceChildren(...found.map(([kind, words]) => h("p", { class: `notice ${kind}` }, fmt.visible(words))));
  if (found.length > 0) announce(found.map(([, words]) => words).join(" "));
}

/** Announces each window whose level has changed since the last event. */
function changes(windows) {
  for (const { name, level: now, pressure } of windows) {
    const before = levels.get(name);
    if (before !== undefined && before !== now) announce(`Window ${name}: level ${before} → ${now}, pressure ${fmt.ratio(pressure)}`);
    levels.set(name, now);
  }
}

function render() {
  if (last === null) return;
  shown($("#frame"), true);
  vitals(last.status);
  upstreams.show(last.status);
  notices();
  all.update(last.windows);
  const window = selected();
  list(last.windows, window);
  shown($("#no-windows"), window === null);
  shown($("#window"), window !== null);
  if (window === null) return;
  attribute(document.body, "data-window", window.name);
  const worst = last.windows.reduce((a, b) => (weight(b) > weight(a) ? b : a));
  document.title = weight(worst) <= 0 ? `${window.name} · Hapax` : `${worst.level}: ${worst.name} · Hapax`;
  history.load(window.name, render);
  panel.show(window, history, last.at, span());
  controls.update(window);
}

function heard(message) {
  const at = Date.now();
  last = { ...message, at };
  history.add(at, message.windows);
  changes(message.windows);
  if (lostAt !== null) {
    announce("Connected again.");
    history.reconnected();
  }
  lostAt = null;
  link("live", "live");
  clients.heard();
  relay.heard(message.status);
  if (document.body.dataset.mayChange === undefined) rights();
  drift.heard();
  // A hidden page only keeps its history; it is drawn when it is shown again.
  if (!document.hidden) render();
}

function lost(why, wait) {
  lostAt ??= new Date(last?.at ?? Date.now());
  lostWhy = why;
  link("lost", `disconnected, next try ${wait < 1_000 ? "at once" : `in ${fmt.span(wait / 1000)}`}`);
  notices();
}

function link(state, words) {
  attribute($("#link"), "data-link", state);
  attribute(document.body, "data-link", state);
  text($("#link .words"), words);
  shown($("#forget-token"), sessionStorage.getItem("hapax-token") !== null);
}

/** Hides what this token may not do. The relay refuses it anyway. */
async function rights() {
  document.body.dataset.mayChange = "true";
  const may = await api("GET", "access").catch(() => ({ may_change: true }));
  document.body.dataset.mayChange = String(may.may_change);
  notices();
}

/** Returns how many seconds the charts go back at most. */
const span = () => Number($("#span").value);

const THEMES = ["system", "light", "dark"];

function theme(name) {
  attribute(document.documentElement, "data-theme", name === "system" ? null : name);
  text($("#theme"), `Theme: ${name}`);
}

function begin() {
  const chosen = () => (THEMES.includes(localStorage.getItem("hapax-theme")) ? localStorage.getItem("hapax-theme") : "system");
  theme(chosen());
  $("#theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(chosen()) + 1) % THEMES.length];
    localStorage.setItem("hapax-theme", next);
    theme(next);
  });
  $("#forget-token").addEventListener("click", () => {
    sessionStorage.removeItem("hapax-token");
    location.reload();
  });
  $("#filter").addEventListener("input", render);
  $("#pressed-first").addEventListener("change", render);
  window.addEventListener("hashchange", render);
  document.addEventListener("visibilitychange", () => !document.hidden && render());
  // Charts are as wide as their panel. Drawing them never changes the panel's width, so this can't loop.
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (entry.contentRect.width === width) return;
    width = entry.contentRect.width;
    render();
  }).observe($("#panel"));
  $("#span").value = localStorage.getItem("hapax-span") === "3600" ? "3600" : "600";
  $("#span").addEventListener("change", () => {
    localStorage.setItem("hapax-span", $("#span").value);
    render();
  });
  all.begin();
  relay.begin();
  controls.begin();
  clients.begin();
  follow(heard, lost);
}

begin();
