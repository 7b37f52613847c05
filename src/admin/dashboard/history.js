// Keeps an hour of each window: what this page has seen, each second of the last ten minutes, and before that what the relay has
// kept, a sample every ten seconds.

import { api } from "./live.js";

const NEAR_MS = 600_000;
const FAR_MS = 3_600_000;
/** The time between two samples that are older than ten minutes. */
const FAR_EVERY_MS = 9_500;
/** A pause that is longer than this is a gap in the line. */
const NEAR_GAP_MS = 5_000;
const FAR_GAP_MS = 25_000;
/** Lengths of the time axis in seconds. Charts use the shortest that holds all samples, so a new page is not almost empty. */
const SPANS = [60, 120, 300, 600, 1_200, 1_800, 3_600];

const numbers = ({ fresh, duplicate, escaped }) => ({ fresh, duplicate, escaped });

export class History {
  #windows = new Map();
  /** windows whose history was asked for, since the page was last connected */
  #asked = new Set();

  #of(name) {
    if (!this.#windows.has(name)) this.#windows.set(name, { near: [], far: [] });
    return this.#windows.get(name);
  }

  /** Adds a sample for each window. */
  add(now, windows) {
    for (const window of windows) {
      const { near, far } = this.#of(window.name);
      near.push({ t: now, ...numbers(window.rates), pressure: window.pressure, entries: window.entries });
      while (near[0].t < now - NEAR_MS) {
        const old = near.shift();
        if (far.length === 0 || old.t - far.at(-1).t >= FAR_EVERY_MS) far.push(old);
      }
      while (far.length > 0 && far[0].t < now - FAR_MS) far.shift();
    }
    const names = new Set(windows.map(({ name }) => name));
    for (const name of this.#windows.keys()) {
      if (!names.has(name)) this.#windows.delete(name);
    }
  }

  /** Asks the relay for its history of a window, once, and calls `then` when it is there. */
  async load(name, then) {
    if (this.#asked.has(name)) return;
    this.#asked.add(name);
    let answer;
    try {
      answer = await api("GET", `history?window=${encodeURIComponent(name)}`);
    } catch {
      // Without it, the charts begin now.
      return;
    }
    const now = Date.now();
    const { near, far } = this.#of(name);
    const own = [...far, ...near];
    const samples = answer.windows[0].samples.map((sample) => ({ ...sample, t: now - sample.ago_seconds * 1_000 }));
    // What the page has seen itself is finer. The relay's samples fill the time before that, and while the page was not connected.
    const isMissing = ({ t }) => own.every((sample) => Math.abs(sample.t - t) > FAR_EVERY_MS);
    const filled = [...far, ...samples.filter(isMissing)].toSorted((a, b) => a.t - b.t);
    far.splice(0, far.length, ...filled);
    then();
  }

  /** Forgets that the relay was asked: there may be a gap to fill. */
  reconnected() {
    this.#asked.clear();
  }

  /** Returns one number of a window over time, for so many seconds. `gap`: after a longer pause, a line begins anew. */
  points(name, key, now, seconds) {
    const { near, far } = this.#of(name);
    const from = now - seconds * 1_000;
    const all = [
      ...far.map((sample) => ({ t: sample.t, v: sample[key], gap: FAR_GAP_MS })),
      ...near.map((sample) => ({ t: sample.t, v: sample[key], gap: NEAR_GAP_MS })),
    ];
    const known = all.filter(({ t, v }) => t >= from && v !== null && v !== undefined).toSorted((a, b) => a.t - b.t);
    // The first second of the page follows the last sample of the relay.
    for (let index = 1; index < known.length; index += 1) known[index].gap = Math.max(known[index].gap, known[index - 1].gap);
    return known;
  }

  /** Returns the length of the charts' time axis in seconds: at most `most`. */
  seconds(name, now, most) {
    const { near, far } = this.#of(name);
    const first = Math.min(far[0]?.t ?? now, near[0]?.t ?? now);
    const fits = SPANS.filter((span) => span <= most);
    return fits.find((span) => now - first <= span * 1000) ?? fits.at(-1);
  }
}
