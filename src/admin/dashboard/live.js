// Talks to the relay: sends requests with the token, and reads the stream of events that keeps the page up to date.
//
// EventSource can't send a header, so the stream is read by hand: fetch, decode, cut into events. A broken stream is
// opened again, at first at once, then after longer and longer pauses.

import { $, shown, text } from "./dom.js";

const TOKEN = "hapax-token";
/** The relay sends an event each second. A stream that is silent for this long is dead, even if TCP has not noticed. */
const SILENCE_MS = 6_000;
const BACKOFF_MS = [250, 1_000, 2_000, 4_000, 8_000, 15_000];

/** An error answer of the relay, with the relay's own text. */
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

/** Asks the user for the token. Several refused requests share one question. Resolves when there is a token to try. */
function askToken() {
  asking ??= new Promise((resolve) => {
    const dialog = $("#token");
    const field = $("input", dialog);
    shown($(".problem", dialog), sessionStorage.getItem(TOKEN) !== null);
    field.value = "";
    // Without the token the page has nothing to show, so the dialog can't be cancelled.
    dialog.oncancel = (event) => event.preventDefault();
    $("form", dialog).onsubmit = (event) => {
      event.preventDefault();
      const given = field.value.trim();
      // Such characters can't be sent in a header. The browser's own error for them would be hard to understand.
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
    // Another request may have asked in the meantime. Then try its token first.
    if (sessionStorage.getItem(TOKEN) === sent) await askToken();
  }
}

/** Sends one request to the API, with JSON in both directions. Throws `Refused` for an error answer. */
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

/** Saves an answer of the API as a file. */
export async function download(path, name) {
  const answer = await send(`/api/v1/${path}`, { method: "GET" });
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => null));
  const url = URL.createObjectURL(await answer.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser has begun to save it by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Cuts text that arrives in pieces into events. */
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
    // The watchdog starts only with the answer, because the user may need time to enter the token.
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

/** Waits for `ms`, or until the user returns to the page, or until the network is back. */
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

/** Follows the relay for as long as the page lives. Calls `onLost` with the reason and the pause before the next try. */
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
