// The forms for the window that is shown: settings with their forecast, look-up of an id, flush.

import { $, attribute, confirm, h, shown, text } from "./dom.js";
import * as fmt from "./format.js";
import { api } from "./live.js";

const path = (window, rest = "") => `windows/${encodeURIComponent(window.name)}${rest}`;
/** Pause before a forecast is requested, so that not every key press requests one. */
const TYPING_MS = 250;

let shownWindow = null;
/** Edits that are not applied yet, by field. A field without an edit follows the relay. */
let draft = {};
let forecast = { of: null, timer: 0 };
let found = null;
/** Whether the place of the look-up is settled: by the traffic, or by the user. */
let preset = false;

const fields = () => ({ capacity: $("#set-capacity"), auto: $("#set-auto"), ttl: $("#set-ttl"), mode: $("#set-mode") });

/** Returns the relay's settings as the fields write them. */
const present = (window) => ({
  capacity: fmt.count(window.capacity),
  auto: window.auto === true,
  ttl: fmt.spanInput(window.ttl_seconds),
  mode: window.mode,
});

function problem(field, words) {
  const element = $(`#${field}-problem`);
  text(element, words ?? "");
  shown(element, Boolean(words));
  const input = fields()[field];
  if (input) attribute(input, "aria-invalid", words ? "true" : null);
}

/** Returns the edits as the body of a PATCH, or null if a field can't be parsed. */
function change() {
  const window = shownWindow;
  const body = {};
  let readable = true;
  const auto = draft.auto ?? window.auto === true;
  let words = null;
  if (auto) {
    if (!window.auto) body.capacity = "auto";
  } else if (draft.capacity !== undefined || window.auto) {
    const capacity = fmt.parseCount(draft.capacity ?? String(window.capacity));
    if (capacity === null || capacity < 1) words = "Write a whole number of ids, such as 2,000,000 or 2M.";
    else if (capacity !== window.capacity || window.auto) body.capacity = capacity;
  }
  problem("capacity", words);
  readable &&= words === null;
  words = null;
  if (draft.ttl !== undefined) {
    const ttl = fmt.parseSpan(draft.ttl);
    if (ttl === null || ttl <= 0) words = "Write a time, such as 90s, 10m or 1h 30m. A number alone counts seconds.";
    else if (Math.abs(ttl - window.ttl_seconds) > 1e-9) body.ttl = ttl;
  }
  problem("ttl", words);
  readable &&= words === null;
  if (draft.mode !== undefined && draft.mode !== window.mode) body.mode = draft.mode;
  return readable ? body : null;
}

/** Returns the memory of the full window: its ids, and what it takes beside them. */
const full = (window) => window.capacity * window.bytes_per_id + Math.max(0, window.bytes - (window.store_bytes ?? window.bytes) - (window.ghost?.bytes ?? 0));

function caughtNow(window) {
  const at = window.what_if.points.find(({ factor }) => factor === 1);
  return at ? at.caught : null;
}

function showNow(window) {
  const set = (name, value) => text($(`#forecast [data-now="${name}"]`), value);
  set("capacity", fmt.count(window.capacity));
  set("bytes", fmt.bytes(full(window)));
  set("pressure", fmt.ratio(window.pressure));
  set("coverage", fmt.percent(window.coverage));
  set("caught", fmt.percent(caughtNow(window)));
}

/** Warns of the immediate effects of a change, which the forecast's averages do not show. */
function warnings(window, body) {
  const all = [];
  if (typeof body.capacity === "number" && body.capacity < window.entries) {
    all.push(`About ${fmt.ids(window.entries - body.capacity)} ${window.entries - body.capacity === 1 ? "is" : "are"} evicted at once; their duplicates will get through.`);
  }
  if (body.mode === "observe") all.push("Duplicates will be counted and forwarded to the broker.");
  if (body.mode === "off") all.push("Nothing will be judged: every duplicate is forwarded, and nothing new is remembered.");
  if (body.ttl !== undefined) all.push("The TTL holds for ids that are stored from then on.");
  $("#warnings").replaceChildren(...all.map((words) => h("li", {}, words)));
}

function settingsProblem(words) {
  text($("#settings-problem"), words ?? "");
  shown($("#settings-problem"), Boolean(words));
}

/** Updates the form after an edit or an event of the relay: enables its buttons and requests a forecast. */
function review() {
  const body = change();
  const key = body && Object.keys(body).length > 0 ? JSON.stringify([shownWindow.name, body]) : null;
  $("#reset").disabled = Object.keys(draft).length === 0;
  if (key !== forecast.of) {
    clearTimeout(forecast.timer);
    forecast = { of: key, timer: 0 };
    settingsProblem(null);
    $("#apply").disabled = true;
    shown($("#forecast table"), false);
    if (key === null) {
      warnings(shownWindow, {});
      text($("#forecast-words"), body === null ? "" : "Change a value to see what it would bring.");
    } else {
      text($("#forecast-words"), "Asking for the forecast…");
      warnings(shownWindow, body);
      forecast.timer = setTimeout(() => ask(key, body), TYPING_MS);
    }
  }
}

async function ask(key, body) {
  const window = shownWindow;
  try {
    const answer = await api("POST", path(window, "/forecast"), body);
    if (forecast.of !== key) return;
    const set = (name, value) => text($(`#forecast [data-after="${name}"]`), value);
    set("capacity", fmt.count(answer.capacity));
    set("bytes", fmt.bytes(answer.bytes));
    set("pressure", fmt.ratio(answer.pressure));
    set("coverage", fmt.percent(answer.coverage));
    set("caught", fmt.percent(answer.caught));
    shown($("#forecast table"), true);
    text($("#forecast-words"), `Pressure ${fmt.ratio(answer.pressure)}, coverage ${fmt.percent(answer.coverage)}, ${fmt.bytes(answer.bytes)} when full.`);
    $("#apply").disabled = false;
  } catch (error) {
    if (forecast.of !== key) return;
    text($("#forecast-words"), "");
    settingsProblem(error.message);
  }
}

/** Returns a change in words, for the message after it was applied. */
function told(before, after) {
  const all = [];
  const say = (name, from, to) => from !== to && all.push(`${name} ${from} → ${to}`);
  say("capacity", fmt.count(before.capacity), fmt.count(after.capacity));
  if (before.auto !== after.auto) all.push(after.auto ? "capacity is automatic" : "capacity is fixed");
  say("TTL", fmt.span(before.ttl_seconds), fmt.span(after.ttl_seconds));
  say("mode", before.mode, after.mode);
  return all.length > 0 ? `Applied: ${all.join(", ")}.` : "Applied.";
}

async function apply(event) {
  event.preventDefault();
  const body = change();
  if ($("#apply").disabled || body === null) return;
  $("#apply").disabled = true;
  const before = shownWindow;
  try {
    const after = await api("PATCH", path(before), body);
    if (shownWindow.name !== before.name) return;
    draft = {};
    follow(after);
    text($("#applied"), told(before, after));
    review();
    // The button that had the focus is disabled now, so move the focus to a field.
    $("#set-capacity").focus({ preventScroll: true });
  } catch (error) {
    settingsProblem(error.message);
    $("#apply").disabled = false;
  }
}

/** Writes the relay's settings into all fields that nobody has edited. */
function follow(window) {
  shownWindow = window;
  const values = present(window);
  const all = fields();
  for (const name of ["capacity", "ttl", "mode"]) {
    const value = draft[name] ?? values[name];
    if (all[name].value !== value && !(document.activeElement === all[name] && name in draft)) all[name].value = value;
  }
  all.auto.checked = draft.auto ?? values.auto;
  all.capacity.disabled = all.auto.checked;
  showNow(window);
}

function edited(name) {
  return (event) => {
    draft[name] = name === "auto" ? event.target.checked : event.target.value;
    text($("#applied"), "");
    follow(shownWindow);
    review();
  };
}

const isPattern = (glob) => /[*?[\]{}\\]/.test(glob);

/** Shows the fields of the look-up that the window's scope needs, and fills in what is known already. */
function lookupParts(window) {
  // For a guard, the field of the exchange takes the queue.
  const guards = window.judges === "deliveries";
  const source = guards ? window.queue : window.exchange;
  const needs = {
    vhost: isPattern(window.vhost),
    exchange: (guards || window.scope !== "vhost") && isPattern(source),
    routing_key: !guards && window.scope === "routing-key",
  };
  for (const [part, needed] of Object.entries(needs)) shown($(`#lookup [data-part="${part}"]`), needed);
  $("#look-vhost").value = isPattern(window.vhost) ? "/" : window.vhost;
  $("#look-exchange").value = isPattern(source) ? "" : source;
  preset = false;
  presetPlace(window);
}

/** Fills in the place of the most fresh ids, once there are some, unless somebody has written a place before. */
function presetPlace(window) {
  const [busiest] = window.top_scopes;
  if (preset || busiest === undefined || window.judges === "deliveries") return;
  preset = true;
  const fill = (field, value) => {
    if (value !== null && value !== undefined && !value.includes("\ufffd")) $(field).value = value;
  };
  if (isPattern(window.vhost)) fill("#look-vhost", busiest.vhost);
  if (isPattern(window.exchange)) fill("#look-exchange", busiest.exchange);
}

function place(window) {
  const query = new URLSearchParams();
  query.set("vhost", $("#look-vhost").value);
  if (window.judges === "deliveries") {
    query.set("queue", $("#look-exchange").value);
    return query;
  }
  if (window.scope !== "vhost") query.set("exchange", $("#look-exchange").value);
  if (window.scope === "routing-key") query.set("routing_key", $("#look-routing-key").value);
  return query;
}

const STATES = {
  seen: "Seen: its duplicates are taken out.",
  in_flight: "In flight: the broker has not answered for it yet.",
  unknown: "Unknown: a publish of it would be forwarded.",
};
const ELSEWHERE = "Not in the memory of this relay. The window's store may know it, and is asked when the id is published.";

function showFound(answer) {
  const at = (iso, seconds, words) => `${fmt.time(new Date(iso))}, ${words(fmt.span(Math.max(0, Math.round(seconds))))}`;
  const rows = [["Id", fmt.visible(answer.id)]];
  if (answer.seen_at) rows.push(["Stored", at(answer.seen_at, answer.age_seconds, (span) => `${span} ago`)]);
  if (answer.state === "seen") rows.push(["Duplicates since", fmt.count(answer.duplicates)]);
  if (answer.expires_at) rows.push(["Expires", at(answer.expires_at, answer.expires_in_seconds, (span) => `in ${span}`)]);
  $("#found").replaceChildren(
    h("p", { class: "found", "data-state": answer.state }, answer.store_may_know_more ? ELSEWHERE : STATES[answer.state] ?? answer.state),
    h("dl", {}, ...rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { dir: "ltr" }, value)))),
  );
}

function lookupProblem(words) {
  found = null;
  shown($("#forget"), false);
  $("#found").replaceChildren(h("p", { class: "problem" }, words));
}

async function lookup(event) {
  event.preventDefault();
  const window = shownWindow;
  const id = $("#look-id").value;
  if (id === "") return lookupProblem("Write the id to look for.");
  // Browsers always interpret these two as steps in a path, even when they are escaped.
  if (id === "." || id === "..") return lookupProblem("A browser can't ask for this id: use `hapax ids get`.");
  const where = `/ids/${encodeURIComponent(id)}?${place(window)}`;
  try {
    const answer = await api("GET", path(window, where));
    if (shownWindow.name !== window.name) return undefined;
    found = { id, where, window };
    showFound(answer);
    shown($("#forget"), answer.state === "seen" || answer.store_may_know_more);
  } catch (error) {
    lookupProblem(error.message);
  }
  return undefined;
}

async function forget() {
  if (found === null) return;
  const { id, where, window } = found;
  const message = `If “${fmt.visible(id)}” is published again, it is forwarded to the broker as if it were new.`;
  if (!(await confirm({ title: "Forget this id?", message, action: "Forget it" }))) return;
  try {
    const { forgotten, store_may_know_more: elsewhere } = await api("DELETE", path(window, where));
    found = null;
    shown($("#forget"), false);
    const words = forgotten || elsewhere ? "Forgotten: a publish of it will be forwarded." : "It was gone already.";
    $("#found").replaceChildren(h("p", { class: "found", "data-state": "unknown" }, words));
    $("#look-id").focus({ preventScroll: true });
  } catch (error) {
    lookupProblem(error.message);
  }
}

async function flush() {
  const window = shownWindow;
  const all = window.entries === 1 ? "The only id" : `All ${fmt.ids(window.entries)}`;
  const message = `${all} of “${window.name}” ${window.entries === 1 ? "is" : "are"} forgotten. Whatever is sent again is forwarded to the broker as if it were new.`;
  if (!(await confirm({ title: "Flush this window?", message, action: `Flush ${window.name}` }))) return;
  try {
    const { flushed } = await api("POST", path(window, "/flush"));
    text($("#flushed"), `${fmt.ids(flushed)} forgotten.`);
  } catch (error) {
    text($("#flushed"), error.message);
  }
}

/** Connects the forms' events. Called once. */
export function begin() {
  for (const [name, field] of Object.entries(fields())) {
    field.addEventListener(name === "auto" || name === "mode" ? "change" : "input", edited(name));
  }
  $("#settings").addEventListener("submit", apply);
  $("#reset").addEventListener("click", () => {
    draft = {};
    follow(shownWindow);
    review();
    $("#set-capacity").focus({ preventScroll: true });
  });
  $("#try-recommended").addEventListener("click", () => {
    draft.capacity = fmt.count(shownWindow.recommended_capacity);
    draft.auto = false;
    text($("#applied"), "");
    follow(shownWindow);
    review();
    $("#settings").scrollIntoView({ block: "nearest" });
    $("#set-capacity").focus({ preventScroll: true });
  });
  $("#lookup").addEventListener("submit", lookup);
  $("#lookup").addEventListener("input", ({ target }) => {
    preset ||= target.id !== "look-id";
  });
  $("#forget").addEventListener("click", forget);
  $("#flush").addEventListener("click", flush);
}

/** Updates the forms. Resets them if the window is another one than before. */
export function update(window) {
  if (shownWindow?.name !== window.name) {
    draft = {};
    found = null;
    shownWindow = window;
    text($("#applied"), "");
    text($("#flushed"), "");
    $("#found").replaceChildren();
    shown($("#forget"), false);
    lookupParts(window);
  }
  presetPlace(window);
  follow(window);
  review();
}
