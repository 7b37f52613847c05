// What concerns the whole relay: recent events, what it logs, and its drain.

import { $, attribute, confirm, h, named, rows, shown, text } from "./dom.js";
import * as fmt from "./format.js";
import { api } from "./live.js";

/** Entries that are shown. The relay keeps more of them: `hapax journal`. */
const KEPT = 50;
const KINDS = {
  start: "start", settings: "settings", flush: "flush", forget: "forget", reload: "reload", log: "log", drain: "drain",
  close: "close", store: "store", upstream: "broker", level: "level",
};

let entries = [];
let known = 0;
let asking = false;

function row({ at, kind, window, text: words, by }) {
  const cell = (label, ...children) => h("td", { "data-label": label }, ...children);
  return h("tr", { "data-kind": kind },
    cell("Time", h("time", { datetime: at }, fmt.time(new Date(at)))), cell("What", KINDS[kind] ?? fmt.visible(kind)),
    cell("Window", window === null ? fmt.NONE : named(fmt.visible(window))),
    cell("Event", h("span", { class: "words" }, fmt.visible(words))), cell("Who", by === null ? fmt.NONE : named(fmt.visible(by))));
}

async function journal(last) {
  // After a restart, the numbers begin anew.
  if (last < known) [entries, known] = [[], 0];
  const answer = await api("GET", `journal?after=${known}&limit=${KEPT}`);
  known = answer.last;
  entries = [...entries, ...answer.entries].slice(-KEPT);
  shown($("#no-events"), entries.length === 0);
  shown($("#journal-list"), entries.length > 0);
  rows($("#journal-list tbody"), entries.toReversed(), ({ number, at, kind }) => `${number} ${at} ${kind}`, row);
}

/** Asks for what is new, if the relay says that there is something. */
export async function heard({ journal: last = 0, draining }) {
  attribute($("#drain"), "disabled", draining ? "" : null);
  if (asking || last === known) return;
  asking = true;
  try {
    await journal(last);
    await level();
  } catch (error) {
    // A lost relay has no status, and is already reported at the top of the page.
    if (error.status !== undefined) [entries, known] = [[], last];
  } finally {
    asking = false;
  }
}

async function level() {
  const { level: now, configured } = await api("GET", "log");
  const field = $("#log-level");
  if (document.activeElement !== field) field.value = now;
  text($("#log-words"), now === configured ? "" : `The configuration says ${configured}.`);
}

async function setLevel(event) {
  event.preventDefault();
  try {
    await api("PUT", "log", { level: $("#log-level").value });
    text($("#log-problem"), "");
    await level();
  } catch (error) {
    text($("#log-problem"), error.message);
  }
}

async function drain() {
  const message = "It takes no new connections, settles what is in flight, closes all connections, and ends. This can't be taken back.";
  if (!(await confirm({ title: "Let this relay end?", message, action: "Drain" }))) return;
  try {
    const { connections } = await api("POST", "drain");
    text($("#drained"), `Draining: ${fmt.count(connections)} connections.`);
  } catch (error) {
    text($("#drained"), error.message);
  }
}

/** Connects the forms. Called once. */
export function begin() {
  $("#log-form").addEventListener("submit", setLevel);
  $("#drain").addEventListener("click", drain);
}
