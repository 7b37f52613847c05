// Lists the broker's nodes, if there are several: which of them answer, which rest, and where the connections are.

import { $, attribute, h, named, rows, shown, text } from "./dom.js";
import * as fmt from "./format.js";

/** Returns the nodes, if there are several. With one, the top of the page says all that there is to say. */
export const several = (status) => ((status.upstreams?.length ?? 0) > 1 ? status.upstreams : []);

/** Returns the nodes that do not answer. */
export const down = (status) => several(status).filter(({ state }) => state === "down");

/** Says how the broker is, in a few words. */
export function words(status) {
  const nodes = several(status);
  if (nodes.length === 0) return status.upstream.ok ? "answers" : "does not answer";
  const up = nodes.filter(({ state }) => state === "up").length;
  return `${up} of ${nodes.length} nodes ${up === 1 ? "answers" : "answer"}`;
}

function row(node) {
  const name = (label, value) => h("td", { "data-label": label }, named(value === null ? fmt.NONE : fmt.visible(value)));
  const number = (label, value) => h("td", { class: "number", "data-label": label }, value);
  const span = (seconds) => (seconds === null ? fmt.NONE : fmt.span(Math.round(seconds)));
  const state = h("td", { "data-label": "State" }, h("span", { class: "state" }, node.state));
  const kind = { up: "good", down: "bad" }[node.state];
  if (kind) attribute(state.firstElementChild, "data-state", kind);
  return h("tr", {},
    name("Node", node.address), state, number("Heard", span(node.age_seconds)), number("Rests", span(node.rest_seconds)),
    number("Connections", fmt.count(node.connections)), number("Opened", fmt.count(node.opened)),
    number("Failures", fmt.count(node.failures)), name("Why", node.error));
}

/** Shows the nodes as they are now. */
export function show(status) {
  const nodes = several(status);
  shown($("#upstreams"), nodes.length > 0);
  if (nodes.length === 0) return;
  text($("#upstreams-words"), words(status));
  rows($("#upstreams tbody"), nodes, ({ address }) => address, row);
}
