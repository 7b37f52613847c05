// Keeps the last ten minutes that this page has seen. The relay keeps no history; Prometheus can do that.

const KEEP_MS = 600_000;
/** Lengths of the time axis in seconds. Charts use the shortest that holds all samples, so a new page is not almost empty. */
const SPANS = [60, 120, 300, 600];

export class History {
  #windows = new Map();

  /** Adds a sample for each window. */
  add(now, windows) {
    for (const window of windows) {
      const samples = this.#windows.get(window.name) ?? [];
      samples.push({
        t: now,
        fresh: window.rates.fresh,
        duplicate: window.rates.duplicate,
        escaped: window.rates.escaped,
        pressure: window.pressure,
        entries: window.entries,
      });
      while (samples[0].t < now - KEEP_MS) samples.shift();
      this.#windows.set(window.name, samples);
    }
    const names = new Set(windows.map(({ name }) => name));
    for (const name of this.#windows.keys()) {
      if (!names.has(name)) this.#windows.delete(name);
    }
  }

  /** Returns one number of a window over time. */
  points(name, key) {
    return (this.#windows.get(name) ?? []).map((sample) => ({ t: sample.t, v: sample[key] }));
  }

  /** Returns the length of the charts' time axis in seconds. */
  seconds(name, now) {
    const first = this.#windows.get(name)?.[0]?.t ?? now;
    return SPANS.find((span) => now - first <= span * 1000) ?? SPANS.at(-1);
  }
}
