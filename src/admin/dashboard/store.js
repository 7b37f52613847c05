// Shows where a window remembers beside memory: its store, whether it works, and how far behind it is.

import { $, attribute, h, shown, text } from "./dom.js";
import * as fmt from "./format.js";

const PLACES = { disk: "on disk", stream: "in a stream of the broker", redis: "in Redis" };
/** A store that is further behind than this has an alert, too. */
const LATE_SECONDS = 10;

const place = (store) => PLACES[store.kind] ?? `in a store (${fmt.visible(store.kind)})`;
const sentence = (words) => `${words[0].toUpperCase()}${words.slice(1)}.`;
const behind = (store) => Math.max(store.lag_seconds, store.behind_seconds ?? 0);

/** Returns the kind of answer, the answer, and what it means. */
function verdict(store) {
  if (!store) return ["none", "In memory only.", "A restart of Hapax forgets these ids."];
  if (store.recovering) return ["warming", "It reads its store.", "Hapax takes no clients before it knows what stood there."];
  if (!store.up) {
    const meaning =
      store.on_outage === "refuse"
        ? `Publishers wait until it is back: ${fmt.count(store.waiting_publishes)} publishes, and the acks of ${fmt.count(store.waiting_commits)} stored messages.`
        : `Publishes go on, judged by memory. A crash now forgets what was stored since: ${fmt.ids(store.unremembered)} so far.`;
    return ["critical", `The store has been down for ${fmt.span(Math.round(store.down_seconds))}.`, meaning];
  }
  const where = sentence(`in memory, and ${place(store)}`);
  const meaning =
    store.remember === "sync"
      ? "A publisher gets its ack when the id is there: no crash forgets it."
      : `An id is there ${fmt.span(store.remember_delay_seconds)} after its ack at the latest. A crash before that forgets it.`;
  return behind(store) > LATE_SECONDS
    ? ["high", `${where.slice(0, -1)}, but ${fmt.span(Math.round(behind(store)))} late.`, meaning]
    : ["ok", where, meaning];
}

/** Returns the rows as `[fact, name, value]`. What is not known has none, and what never went wrong has none. */
function rows(store) {
  const known = (value, row) => (value === undefined ? [] : [row]);
  const wrong = (value, row) => (value > 0 ? [row] : []);
  const { memory_bytes: used, memory_max_bytes: most } = store;
  return [
    ...known(store.oldest_seconds, ["oldest_seconds", "Goes back for", fmt.span(store.oldest_seconds)]),
    ["waiting_records", "Not written yet", `${fmt.count(store.waiting_records)}${store.waiting_records > 0 ? `, for ${fmt.span(store.lag_seconds)}` : ""}`],
    ...known(store.behind_seconds, ["behind_seconds", "Behind the other relays", fmt.span(store.behind_seconds)]),
    ...known(store.latency_seconds, ["latency_seconds", "Last answer took", fmt.span(store.latency_seconds)]),
    ...known(store.bytes, ["bytes", "Room taken", fmt.bytes(store.bytes)]),
    ...known(used, ["memory_bytes", "Memory of the store", most === undefined ? fmt.bytes(used) : `${fmt.bytes(used)} of ${fmt.bytes(most)}`]),
    ["recovered", "Read at the start", fmt.count(store.recovered)],
    ...(store.kind === "disk" ? [] : [["merged", "From other relays", fmt.count(store.merged)]]),
    ...wrong(store.crossed, ["crossed", "Let through by two relays", fmt.count(store.crossed)]),
    ...wrong(store.unremembered, ["unremembered", "Acked while it was down", fmt.count(store.unremembered)]),
    ...wrong(store.dropped_records, ["dropped_records", "Never written", fmt.count(store.dropped_records)]),
    ...wrong(store.damaged_batches, ["damaged_batches", "Damaged batches", fmt.count(store.damaged_batches)]),
    ...wrong(store.evicted_keys, ["evicted_keys", "Thrown out by the store", fmt.count(store.evicted_keys)]),
    ...wrong(store.reconnects, ["reconnects", "Reconnects", fmt.count(store.reconnects)]),
  ];
}

/** Updates the card of this window's store. */
export function show({ store }) {
  const [kind, answer, meaning] = verdict(store);
  attribute($("#store-verdict"), "data-verdict", kind);
  text($("#store-verdict"), answer);
  text($("#store-words"), meaning);
  const list = $("#store-facts");
  const all = store ? rows(store) : [];
  shown(list, all.length > 0);
  const key = all.map(([fact]) => fact).join(" ");
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...all.map(([fact, name]) => h("div", {}, h("dt", {}, name), h("dd", { "data-fact": `store.${fact}` }))));
  }
  for (const [index, [, , value]] of all.entries()) text(list.children[index].children[1], value);
}
