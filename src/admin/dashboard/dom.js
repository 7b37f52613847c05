// The few functions that change the document. Text is always set as text, so no markup can get in.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) element.append(child);
  }
  return element;
}

/** Creates an element. Strings among the children become text nodes. */
export const h = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);

/** Creates an SVG element in the same way. */
export const s = (tag, attributes = {}, ...children) =>
  build(document.createElementNS(SVG, tag), attributes, children);

/** Sets an element's text if it differs, so that a selection survives and the browser need not lay it out again. */
export function text(element, value) {
  if (element && element.textContent !== value) element.textContent = value;
}

/** Sets an attribute if it differs. null removes it. */
export function attribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Shows or hides an element. */
export function shown(element, yes) {
  if (element.hidden === yes) element.hidden = !yes;
}

/** Puts these elements into `host` in this order. What is in its place already is not touched. */
function arrange(host, wanted) {
  const stays = new Set(wanted);
  for (const child of [...host.children]) if (!stays.has(child)) child.remove();
  for (const [index, child] of wanted.entries()) {
    if (host.children[index] !== child) host.insertBefore(child, host.children[index] ?? null);
  }
}

/**
 * Shows an element for each item. `key` tells the items apart. An element whose item was shown before stays, and `renew` brings it up to
 * date: a click that has begun on it still ends on it, and what is selected stays selected. The others are created by `make`.
 */
export function keyed(host, items, key, make, renew = () => {}) {
  const known = new Map([...host.children].map((child) => [child.dataset.key, child]));
  const focused = host.contains(document.activeElement) ? document.activeElement : null;
  arrange(host, items.map((item) => {
    const own = key(item);
    const shown = known.get(own) ?? make(item);
    if (known.delete(own)) renew(shown, item);
    shown.dataset.key = own;
    return shown;
  }));
  // An element that has moved has lost the focus.
  if (focused !== null && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

/** Shows a row for each item. `key` is a text and tells the items apart. A row that stays takes over only the cells that differ. */
export function rows(host, items, key, make) {
  keyed(host, items, key, make, (row, item) => {
    const cells = [...row.children];
    for (const [index, cell] of [...make(item).children].entries()) if (!cells[index].isEqualNode(cell)) cells[index].replaceWith(cell);
  });
}

/** Creates the text of a name. A long one is cut; all of it is in the tooltip. */
export const named = (words, cls = "name") => h("span", { class: cls, dir: "ltr", title: words }, words);

const MARKS = { off: "○", ok: "●", warming: "◔", blind: "◌", high: "▲", critical: "■" };

/** Shows a level by shape, colour and word. */
export function level(element, name) {
  attribute(element, "data-level", name);
  text(element, `${MARKS[name] ?? "?"} ${name}`);
}

/**
 * Asks a question in a dialog. Resolves to true if it was confirmed, and to false after Escape or Cancel. With a `label`, there is a
 * field to write something: resolves to its text, or to null.
 */
export function confirm({ title, message, action, label = null }) {
  const dialog = $("#confirm");
  const field = $("#confirm-input");
  field.value = "";
  shown($("#confirm-field"), label !== null);
  text($("label", $("#confirm-field")), label ?? "");
  text($("h2", dialog), title);
  text($("p", dialog), message);
  const yes = $("[data-yes]", dialog);
  text(yes, action);
  return new Promise((resolve) => {
    const answer = (value) => () => dialog.close(value);
    yes.onclick = answer("yes");
    $("[data-no]", dialog).onclick = answer("no");
    dialog.returnValue = "no";
    const result = () => (label === null ? dialog.returnValue === "yes" : dialog.returnValue === "yes" ? field.value.trim() : null);
    dialog.onclose = () => {
      // The event of the question before this one may come late.
      if (!dialog.open) resolve(result());
    };
    dialog.showModal();
  });
}

let announcing = 0;

/** Announces a message to a screen reader. Messages of the same turn are read together. */
export function announce(message) {
  const region = $("#announcer");
  region.append(h("p", {}, message));
  while (region.childElementCount > 5) region.firstElementChild.remove();
  clearTimeout(announcing);
  announcing = setTimeout(() => region.replaceChildren(), 15_000);
}
