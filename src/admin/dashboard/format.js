// Writes numbers, durations and sizes as text, and reads them. All functions are pure: they do not touch the page.
//
// Every user gets the same locale. Otherwise 1.234 in a screenshot would mean different numbers to different readers.

const integer = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const twoDigits = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const NONE = "–";
/** A no-break space, which keeps a number and its unit on one line. */
const NB = "\u00a0";
const known = (value) => typeof value === "number" && Number.isFinite(value);

/** Writes 1,234,567. */
export const count = (value) => (known(value) ? integer.format(value) : NONE);

/** Writes 1.23M, for axes and other narrow places. An average that fades ends as "< 0.01". */
export function compact(value) {
  if (!known(value)) return NONE;
  return value > 0 && value < 0.00995 ? "< 0.01" : short.format(value);
}

/** Writes "1 id" or "1,234 ids". */
export const ids = (value, kind = "") => `${count(value)} ${kind}${value === 1 ? "id" : "ids"}`;

/** The level that is shown of a window. One that judges nothing has none. */
export const levelOf = ({ mode, level }) => (mode === "off" ? "off" : level);

/** Writes 12.3/s, and whole numbers from a hundred on. */
export function rate(value) {
  if (!known(value)) return NONE;
  if (value === 0) return "0/s";
  if (value < 0.05) return "< 0.1/s";
  return `${value < 99.95 ? oneDigit.format(value) : integer.format(value)}/s`;
}

/** Writes 1.40. */
export function ratio(value) {
  if (!known(value)) return NONE;
  if (value > 0 && value < 0.005) return "< 0.01";
  return value < 999.995 ? twoDigits.format(value) : compact(value);
}

/** Writes 99.9 %. It cuts instead of rounding, so that "100 %" always means all. */
export function percent(share) {
  if (!known(share)) return NONE;
  const tenths = Math.floor(share * 1000 + 1e-6) / 10;
  if (share > 0 && tenths < 0.1) return `<${NB}0.1${NB}%`;
  return `${tenths === 100 || tenths === 0 ? integer.format(tenths) : oneDigit.format(tenths)}${NB}%`;
}

/** Writes a tiny share as "1 in N": a false-positive rate of 7.6e-6 is "1 in 131,072". */
export function oneIn(share) {
  if (!known(share) || share <= 0) return "none";
  return `1 in ${integer.format(Math.round(1 / share))}`;
}

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/** Writes 95.4 MiB. */
export function bytes(value) {
  if (!known(value)) return NONE;
  let unit = 0;
  while (value >= 1023.95 && unit < SIZES.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 99.95 ? integer.format(value) : oneDigit.format(value)}${NB}${SIZES[unit]}`;
}

const UNITS = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];

/** Writes 2 min 13 s, with the two largest units that are not zero. */
export function span(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds === 0) return `0${NB}s`;
  if (seconds < 0.00005) return `<${NB}0.1${NB}ms`;
  if (seconds < 0.9995) return `${seconds < 0.0095 ? oneDigit.format(seconds * 1000) : integer.format(seconds * 1000)}${NB}ms`;
  if (seconds < 9.95 && !Number.isInteger(seconds)) return `${oneDigit.format(seconds)}${NB}s`;
  let rest = Math.round(seconds);
  const first = UNITS.findIndex(([, size]) => rest >= size);
  const parts = [];
  for (const [name, size] of UNITS.slice(first, first + 2)) {
    const amount = Math.floor(rest / size);
    rest -= amount * size;
    if (amount > 0) parts.push(`${integer.format(amount)}${NB}${name}`);
  }
  return parts.join(" ");
}

/** Writes 1.7 min, with one unit, for axes. */
export function spanShort(seconds) {
  if (!known(seconds) || seconds < 1) return span(seconds);
  const [name, size] = UNITS.find(([, size]) => seconds >= size);
  return `${Number((seconds / size).toPrecision(2))}${NB}${name}`;
}

/** Writes 14:03:22 in the reader's own time zone. */
export const time = (date) => clock.format(date);

/** Writes 1h 30m as in the relay's configuration, for the field that edits it. */
export function spanInput(seconds) {
  if (!known(seconds)) return "";
  let rest = Math.round(seconds * 1000);
  const parts = [];
  for (const [name, size] of [["d", 86_400_000], ["h", 3_600_000], ["m", 60_000], ["s", 1000], ["ms", 1]]) {
    const amount = Math.floor(rest / size);
    rest -= amount * size;
    if (amount > 0) parts.push(`${amount}${name}`);
  }
  return parts.join(" ") || "0s";
}

const SECONDS = new Map(
  [
    [["ns", "nsec"], 1e-9],
    [["us", "usec", "µs"], 1e-6],
    [["ms", "msec", "millisecond", "milliseconds"], 1e-3],
    [["s", "sec", "secs", "second", "seconds"], 1],
    [["m", "min", "mins", "minute", "minutes"], 60],
    [["h", "hr", "hrs", "hour", "hours"], 3600],
    [["d", "day", "days"], 86_400],
    [["w", "week", "weeks"], 604_800],
    [["month", "months"], 2_630_016],
    [["y", "year", "years"], 31_557_600],
  ].flatMap(([names, seconds]) => names.map((name) => [name, seconds])),
);

// One grammar with the relay's own src/config/number.rs; tests/fixtures/numbers.json has examples for both. A comma groups
// three digits and is never a decimal point.
const NUMBER = /(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+(?:_[0-9]+)*)(?:\.[0-9]+)?/.source;
const numberOf = (text) => Number(text.replace(/[_,]/g, ""));

/**
 * Reads the seconds of "10m", "1h 30m" or "90s". A number without a unit counts seconds. Returns null for other text. The
 * result is exact to the millisecond.
 */
export function parseSpan(text) {
  const bare = text.trim();
  if (new RegExp(`^${NUMBER}$`).test(bare)) return numberOf(bare);
  const part = new RegExp(`\\s*(${NUMBER})\\s*(\\p{L}+)\\s*`, "uy");
  let seconds = 0;
  let end = 0;
  while (end < bare.length) {
    part.lastIndex = end;
    const match = part.exec(bare);
    if (!match) return null;
    seconds += numberOf(match[1]) * (SECONDS.get(match[2].toLowerCase()) ?? NaN);
    end = part.lastIndex;
  }
  return bare && Number.isFinite(seconds) && seconds < 1e11 ? Math.round(seconds * 1000) / 1000 : null;
}

/** Reads a count: "2,000,000", "2_000_000", "2.5M" or "500k". Returns null for other text. */
export function parseCount(text) {
  const match = new RegExp(`^(${NUMBER})\\s*([kmg]?)$`, "i").exec(text.trim());
  if (!match) return null;
  const scale = { "": 1, k: 1e3, m: 1e6, g: 1e9 }[match[2].toLowerCase()];
  // In decimal, because 1.1 * 1e3 is no whole number in binary.
  const [whole, fraction = ""] = match[1].replace(/[_,]/g, "").split(".");
  const value = Number(whole) * scale + Number(`0.${fraction || "0"}`) * scale;
  const rounded = Math.round(value);
  return Math.abs(value - rounded) < 1e-6 && Number.isSafeInteger(rounded) ? rounded : null;
}

/**
 * Makes names that publishers have chosen safe to look at: writes control characters, and characters that reverse the
 * direction of text, as escapes. Markup is no danger here, because the page only sets textContent.
 */
export function visible(text) {
  const hidden = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]/g;
  return String(text).replace(hidden, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
