// The line to the relay: requests with the token, and the stream of events that keeps the page up to date.
//
// EventSource can't send a header, so the stream is read by hand: fetch, decode, cut into events. When it breaks it is
// opened again, at first at once, then less and less often.

import { $, shown, text } from "./dom.js";

const TOKEN = "hapax-token";
/** The relay says something each second; a stream that is silent for so long is dead, whatever TCP thinks. */
const SILENCE_MS = 6_000;
const BACKOFF_MS = [250, 1_000, 2_000, 4_000, 8_000, 15_000];

/** What the relay refused, in its own words. */
export class Refused extends Error {
  constructor(status, body) {
    const said = Array.isArray(body?.errors) && body.errors.length > 0 ? body.errors : [body?.error];
    const words = said.map((one) => (typeof one === "string" ? one : (one?.error ?? one?.message))).filter(Boolean);
    super(words.join("\n") || `the relay answered with status ${status}`);
    this.status = status;
  }
}

const headers = (more = {}) => {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
};

let asking = null;

/** Asks for the token, once however many requests were refused. Resolves when there is one to try. */
function askToken() {
  asking ??= new Promise((resolve) => {
    const dialog = $("#token");
    const field = $("input", dialog);
    shown($(".problem", dialog), sessionStorage.getItem(TOKEN) !== null);
    field.value = "";
    // A page without the token has nothing to show, so there is no way out but to give one.
    dialog.oncancel = (event) => event.preventDefault();
    $("form", dialog).onsubmit = (event) => {
      event.preventDefault();
      const given = field.value.trim();
      // What can't go into a header would only fail later, with words that nobody understands.
      if (!/^[\x21-\x7e]+$/.test(given)) {
        text($(".problem", dialog), "A token has no spaces and no letters beyond ASCII.");
        shown($(".problem", dialog), true);
        return;
      }
      sessionStorage.setItem(TOKEN, given);
      text($(".problem", dialog), "The relay did not accept that token.");
      asking = null;
      dialog.close();
      resolve();
    };
    dialog.showModal();
  });
  return asking;
}

async function send(path, options) {
  for (;;) {
    const sent = sessionStorage.getItem(TOKEN);
    const answer = await fetch(path, { cache: "no-store", ...options, headers: headers(options.headers) });
    if (answer.status !== 401) return answer;
    // Another request may have asked meanwhile; then its token is to be tried first.
    if (sessionStorage.getItem(TOKEN) === sent) await askToken();
  }
}

/** One request to the API; JSON there and back. Throws `Refused` for what the relay refuses. */
export async function api(method, path, body) {
  const options = { method, headers: {} };
  if (method !== "GET") {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body ?? {});
  }
  const answer = await send(`/api/v1/${path}`, options);
  const said = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, said);
  return said;
}

/** Cuts text that comes in pieces into events. */
export function cutter(onEvent) {
  let rest = "";
  return (piece) => {
    rest += piece;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      let name = "message";
      const data = [];
      for (const line of block.split(/\r?\n/)) {
        if (line.startsWith("event:")) name = line.slice(6).trim();
        else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      }
      if (data.length > 0) onEvent(name, data.join("\n"));
    }
  };
}

async function read(onWindows) {
  const abort = new AbortController();
  let watchdog;
  const alive = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => abort.abort(), SILENCE_MS);
  };
  try {
    // While the token is asked for nobody is silent: the watch begins with the answer.
    const options = { method: "GET", headers: { Accept: "text/event-stream" }, signal: abort.signal };
    const answer = await send("/api/v1/events", options);
    if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => null));
    alive();
    const cut = cutter((name, data) => {
      if (name === "windows") onWindows(JSON.parse(data));
    });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Error("the relay ended the stream");
      alive();
      cut(value);
    }
  } finally {
    clearTimeout(watchdog);
    abort.abort();
  }
}

/** Waits so long, or until the reader comes back to the page or the network does. */
function pause(ms) {
  return new Promise((resolve) => {
    const events = [[window, "online"], [document, "visibilitychange"]];
    const done = () => {
      clearTimeout(timer);
      events.forEach(([target, name]) => target.removeEventListener(name, done));
      resolve();
    };
    const timer = setTimeout(done, ms);
    events.forEach(([target, name]) => target.addEventListener(name, done));
  });
}

/** Follows the relay for as long as the page lives. `onLost` is told why, and when it will be tried again. */
export async function follow(onWindows, onLost) {
  let failed = 0;
  for (;;) {
    try {
      await read((message) => {
        failed = 0;
        onWindows(message);
      });
    } catch (error) {
      const wait = BACKOFF_MS[Math.min(failed, BACKOFF_MS.length - 1)];
      failed += 1;
      onLost(error instanceof Refused ? error.message : null, wait);
      await pause(wait);
    }
  }
}
