// Numbers, durations and names for people. Pure.

const scaled = (value, base, units) => {
  let unit = 0;
  while (Math.abs(value) >= base && unit < units.length - 1) {
    value /= base;
    unit += 1;
  }
  const digits = unit > 0 && Math.abs(value) < 10 ? 1 : 0;
  return [value.toFixed(digits), units[unit]];
};

/** 1482 -> "1482", 12345 -> "12 k", 1.2e6 -> "1.2 M". */
export const count = (value) => (Math.abs(value) < 10_000 ? String(Math.round(value)) : scaled(value, 1000, ["", "k", "M", "G", "T"]).join(" "));

/** Per second: small values keep one digit. */
export const rate = (value) => (value > 0 && value < 10 ? value.toFixed(1) : count(value));

/** Bytes, SI. */
export const bytes = (value) => scaled(value, 1000, ["B", "kB", "MB", "GB", "TB", "PB"]).join(" ");

/** Bytes per second as bits per second, which is how links are rated. */
export const bits = (bytesPerSecond) => scaled(bytesPerSecond * 8, 1000, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]).join(" ");

/** "0.4 s", "12 s", "3 min", "2 h 05", "4 d". */
export function duration(seconds) {
  const value = Math.max(0, seconds);
  if (value < 9.95) return `${value.toFixed(1)} s`;
  if (value < 99.5) return `${Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  if (value < 48 * 3600) return `${Math.floor(value / 3600)} h ${String(Math.floor((value % 3600) / 60)).padStart(2, "0")}`;
  return `${Math.floor(value / 86400)} d`;
}

export const clock = (unix) => new Date(unix * 1000).toLocaleTimeString([], { hour12: false });
export const dateTime = (unix) => new Date(unix * 1000).toLocaleString([], { hour12: false });

/** Cut from the middle: both ends of an address tell things apart. */
export function clip(string, length) {
  if (string.length <= length) return string;
  const head = Math.ceil((length - 1) / 2);
  return `${string.slice(0, head)}…${string.slice(string.length - (length - 1 - head))}`;
}

/** Cut the end: for sentences. */
export const cut = (string, length) => (string.length <= length ? string : `${string.slice(0, length - 1).trimEnd()}…`);

export const plural = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

/** "tcp:192.0.2.10:80" -> ["tcp", "192.0.2.10:80"]; "fwmark:7" -> ["fwmark", "7"]. */
export function splitId(id) {
  const at = id.indexOf(":");
  return [id.slice(0, at), id.slice(at + 1)];
}
