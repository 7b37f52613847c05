// The few things that the page does to the document. Text goes in as text: there is no way to pass markup.

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

/** An element; strings among the children become text nodes. */
export const h = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);

/** Likewise, of SVG. */
export const s = (tag, attributes = {}, ...children) =>
  build(document.createElementNS(SVG, tag), attributes, children);

/** Sets text only where it differs, so that a selection survives and nothing is laid out again in vain. */
export function text(element, value) {
  if (element && element.textContent !== value) element.textContent = value;
}

/** Likewise for an attribute; null removes it. */
export function attribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Shows or hides. */
export function shown(element, yes) {
  if (element.hidden === yes) element.hidden = !yes;
}

const MARKS = { ok: "●", high: "▲", critical: "■" };

/** A level as shape, colour and word. */
export function level(element, name) {
  attribute(element, "data-level", name);
  text(element, `${MARKS[name] ?? "?"} ${name}`);
}

/** Opens a dialog that asks; resolves to whether it was confirmed. Escape and Cancel say no. */
export function confirm({ title, message, action }) {
  const dialog = $("#confirm");
  text($("h2", dialog), title);
  text($("p", dialog), message);
  const yes = $("[data-yes]", dialog);
  text(yes, action);
  return new Promise((resolve) => {
    const answer = (value) => () => dialog.close(value);
    yes.onclick = answer("yes");
    $("[data-no]", dialog).onclick = answer("no");
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}

let announcing = 0;

/** Tells a screen reader, politely. What comes within one turn is said together. */
export function announce(message) {
  const region = $("#announcer");
  region.append(h("p", {}, message));
  while (region.childElementCount > 5) region.firstElementChild.remove();
  clearTimeout(announcing);
  announcing = setTimeout(() => region.replaceChildren(), 15_000);
}
