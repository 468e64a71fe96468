// How numbers and instants are written. Nothing is rounded but here.

let local = false;

/** Whether instants are shown in local time; else in UTC. */
export function setLocal(value) {
  local = value;
}

export function zone() {
  return local ? "local" : "UTC";
}

const two = (n) => String(n).padStart(2, "0");
const three = (n) => String(n).padStart(3, "0");
const dateMax = 8.64e15;

function parts(ms) {
  const d = new Date(ms);
  return local
    ? [d.getFullYear(), d.getMonth() + 1, d.getDate(), d.getHours(), d.getMinutes(), d.getSeconds(), d.getMilliseconds()]
    : [d.getUTCFullYear(), d.getUTCMonth() + 1, d.getUTCDate(), d.getUTCHours(), d.getUTCMinutes(), d.getUTCSeconds(), d.getUTCMilliseconds()];
}

const unseen = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** A text with what nobody sees, or what turns the text behind it round, written out: a name may hold anything. */
export function plain(text) {
  return text.replace(unseen, (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Date and time to the millisecond. */
export function instant(ms) {
  if (ms === null || ms === undefined) return "–";
  if (Math.abs(ms) > dateMax) return `${ms} ms`;
  const [y, mo, d, h, mi, s, milli] = parts(ms);
  return `${y}-${two(mo)}-${two(d)} ${two(h)}:${two(mi)}:${two(s)}.${three(milli)}`;
}

/** Time of the day to the millisecond. */
export function time(ms) {
  if (ms === null || ms === undefined) return "–";
  if (Math.abs(ms) > dateMax) return `${ms} ms`;
  const [, , , h, mi, s, milli] = parts(ms);
  return `${two(h)}:${two(mi)}:${two(s)}.${three(milli)}`;
}

const grouped = new Intl.NumberFormat("en-US");

export function count(n) {
  return n === null || n === undefined ? "–" : grouped.format(n);
}

/** With so many decimals, grouped, and a sign if asked for. */
export function fixed(value, decimals, signed = false) {
  if (value === null || value === undefined) return "–";
  const shown = Math.abs(value).toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  const zero = !/[1-9]/.test(shown);
  return (value < 0 && !zero ? "−" : signed && !zero ? "+" : "") + shown;
}

/** Milliseconds of an offset: as many decimals as its size bears. */
export function offset(ms) {
  if (ms === null || ms === undefined) return "–";
  return fixed(ms, Math.abs(ms) < 100 ? 3 : Math.abs(ms) < 10000 ? 1 : 0, true);
}

export function bound(ms) {
  return ms === null || ms === undefined ? "–" : fixed(ms, ms < 10 ? 3 : ms < 1000 ? 1 : 0);
}

const sizes = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Bytes in the largest unit of which there is one; a kB is 1,000. */
export function bytes(n) {
  if (n === null || n === undefined) return "–";
  let size = 0;
  let left = n;
  while (left >= 999.5 && size < sizes.length - 1) { left /= 1000; size += 1; }
  return `${fixed(left, size && left < 9.95 ? 1 : 0)} ${sizes[size]}`;
}

const units = [[86400, "d"], [3600, "h"], [60, "min"]];

/** Seconds in the largest unit of which there are two. */
export function duration(s) {
  if (s === null || s === undefined) return "–";
  for (const [size, unit] of units) if (s >= 2 * size) return `${count(Math.floor(s / size))} ${unit}`;
  return `${count(Math.floor(s))} s`;
}

const ages = [[31557600, "y"], [86400, "d"], [3600, "h"], [60, "min"]];

/** Seconds in the largest unit of which there is one, with a decimal where there are less than ten. */
export function age(s) {
  for (const [size, unit] of ages) {
    const many = s / size;
    if (many >= 0.995) return `${fixed(many, many < 9.95 && Math.abs(many - Math.round(many)) >= 0.05 ? 1 : 0)} ${unit}`;
  }
  return `${count(Math.max(0, Math.floor(s)))} s`;
}

/** Milliseconds in words, with the unit that fits. */
export function span(ms) {
  if (ms === null || ms === undefined) return "–";
  const size = Math.abs(ms);
  if (size < 1000) return `${fixed(ms, 0, true)} ms`;
  if (size < 120000) return `${fixed(ms / 1000, 3, true)} s`;
  return `${ms < 0 ? "−" : "+"}${duration(size / 1000)}`;
}
