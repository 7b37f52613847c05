// The last ten minutes, as this page has seen them. The relay keeps no history: Prometheus does, for those who have one.

const KEEP_MS = 600_000;
/** What charts span, in seconds: the smallest that holds what there is, so that a young page is not an empty one. */
const SPANS = [60, 120, 300, 600];

export class History {
  #windows = new Map();

  /** Takes note of what is known now. */
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

  /** One number of a window over time. */
  points(name, key) {
    return (this.#windows.get(name) ?? []).map((sample) => ({ t: sample.t, v: sample[key] }));
  }

  /** How many seconds charts span. */
  seconds(name, now) {
    const first = this.#windows.get(name)?.[0]?.t ?? now;
    return SPANS.find((span) => now - first <= span * 1000) ?? SPANS.at(-1);
  }
}
