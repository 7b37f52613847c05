// Lists the client connections, a page at a time, and closes them. The list is requested every few seconds while it is visible.

import { $, attribute, confirm, h, named, rows, shown, text } from "./dom.js";
import * as fmt from "./format.js";
import { api } from "./live.js";

const EVERY_MS = 3_000;
const PAGE = 50;

let offset = 0;
let seen = false;
let asked = 0;
let answered = false;

function product({ client }) {
  const name = [client?.product, client?.version].filter(Boolean).join(" ") || fmt.NONE;
  const own = client?.connection_name;
  return own ? `${own} (${name})` : name;
}

async function close({ id, peer, user }) {
  const message = `Its client is told that it was closed, and why. What is in flight is still settled with the broker. Most clients connect again.`;
  const title = `Close the connection ${id} from ${peer}${user ? ` of ${fmt.visible(user)}` : ""}?`;
  const reason = await confirm({ title, message, action: "Close it", label: "What the client is told (optional)" });
  if (reason === null) return;
  try {
    await api("DELETE", `connections/${id}?reason=${encodeURIComponent(reason)}`);
    text($("#closed"), `Connection ${id} is closed.`);
  } catch (error) {
    text($("#closed"), error.message);
  }
  ask();
}

function closer(connection) {
  const button = h("button", { type: "button", class: "danger small", "data-close": connection.id }, "Close…");
  button.addEventListener("click", () => close(connection));
  return h("td", { class: "number", "data-label": "", "data-changes": true }, button);
}

function row(connection) {
  const name = (label, value) => h("td", { "data-label": label }, named(value === null || value === undefined ? fmt.NONE : fmt.visible(value)));
  const number = (label, value) => h("td", { class: "number", "data-label": label }, value);
  return h("tr", {},
    name("Peer", connection.peer), name("User", connection.user), name("Vhost", connection.vhost),
    name("Client", product(connection)), name("State", connection.state),
    number("Channels", fmt.count(connection.channels)), number("Unresolved", fmt.count(connection.unresolved)),
    number("Publishes", fmt.count(connection.publishes)),
    number("Duplicates", fmt.count(connection.duplicates)), number("Deliveries", fmt.count(connection.deliveries)), number("In", fmt.bytes(connection.bytes_in)),
    number("Out", fmt.bytes(connection.bytes_out)), number("Since", fmt.span(Math.round(connection.age_seconds))), closer(connection));
}

async function ask() {
  const turn = ++asked;
  let answer;
  try {
    answer = await api("GET", `connections?limit=${PAGE}&offset=${offset}`);
  } catch (error) {
    // A lost relay has no status, and is already reported at the top of the page.
    if (error.status !== undefined) text($("#clients-words"), error.message);
    return;
  }
  if (turn !== asked) return;
  answered = true;
  const { connections, total } = answer;
  // All connections of the last page may have closed since.
  if (connections.length === 0 && offset > 0) {
    offset = Math.max(0, Math.floor((total - 1) / PAGE) * PAGE);
    return;
  }
  shown($("#no-clients"), total === 0);
  shown($("#client-list"), total > 0);
  const part = total > connections.length ? `${fmt.count(offset + 1)} to ${fmt.count(offset + connections.length)} of ` : "";
  text($("#clients-words"), total === 0 ? "" : `${part}${fmt.count(total)} open`);
  shown($("#pages"), total > PAGE);
  attribute($("#page-back"), "disabled", offset === 0 ? "" : null);
  attribute($("#page-on"), "disabled", offset + connections.length >= total ? "" : null);
  rows($("#client-list tbody"), connections, ({ id, peer, user }) => `${id} ${peer} ${user}`, row);
}

/** Requests the list once the relay answers, although it is out of view: whether there are clients is known from then on. */
export function heard() {
  if (!answered && asked === 0) ask();
}

/** Connects the list's buttons and its timer. Called once. */
export function begin() {
  const turn = (pages) => () => {
    offset = Math.max(0, offset + pages * PAGE);
    ask();
  };
  $("#page-back").addEventListener("click", turn(-1));
  $("#page-on").addEventListener("click", turn(1));
  // Do not request connections while their list is scrolled out of view: there may be thousands.
  new IntersectionObserver(([entry]) => {
    const came = entry.isIntersecting && !seen;
    seen = entry.isIntersecting;
    if (came) ask();
  }, { rootMargin: "200px" }).observe($("#clients"));
  setInterval(() => seen && !document.hidden && document.body.dataset.link === "live" && ask(), EVERY_MS);
}
