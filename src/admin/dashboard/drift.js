// Says at the top of the page where the configuration file and the running relay differ: what a restart would undo, what a reload
// would bring, and what is wrong with the file.

import { $, announce, h } from "./dom.js";
import * as fmt from "./format.js";
import { api } from "./live.js";

/** The relay reads its file for each answer. */
const EVERY_MS = 5_000;
/** Keys and errors that are named. */
const NAMED = 5;

let asked = -Infinity;

const some = (list) => `${list.slice(0, NAMED).join(", ")}${list.length > NAMED ? `, and ${list.length - NAMED} more` : ""}`;

/** Returns the notices about a state as the relay gives it: the kind of each, and its words. */
export function notices({ file, changed_live: live, not_loaded: pending, file_errors: errors }) {
  const all = [];
  const place = file ?? "the configuration file";
  if (errors.length > 0) all.push(["bad", `A restart would fail, because of ${place}: ${some(errors)}`]);
  const keys = live.map(({ key }) => key);
  if (keys.length > 0) {
    const undone = file === null ? "A restart undoes it" : "A restart or a reload undoes it";
    all.push(["warn", `Changed while the relay runs, and not in ${file === null ? "a file" : file}: ${some(keys)}. ${undone}.`]);
  }
  const news = pending.filter(({ key }) => !keys.includes(key));
  const words = news.map(({ key, effect }) => (effect === "restart" ? `${key} (needs a restart)` : key));
  if (words.length > 0) all.push(["warn", `In ${place}, and not loaded: ${some(words)}. hapax reload --dry-run says more.`]);
  return all;
}

function show(state) {
  const all = notices(state);
  const key = JSON.stringify(all);
  const host = $("#drift");
  if (host.dataset.key === key) return;
  host.dataset.key = key;
  host.replaceChildren(...all.map(([kind, words]) => h("p", { class: `notice ${kind}` }, fmt.visible(words))));
  if (all.length > 0) announce(all.map(([, words]) => words).join(" "));
}

/** Asks again, if it is time. Called at each event of the relay. */
export async function heard() {
  if (document.hidden || performance.now() - asked < EVERY_MS) return;
  asked = performance.now();
  try {
    show(await api("GET", "config"));
  } catch {
    // A relay that is lost is reported beside this.
  }
}
