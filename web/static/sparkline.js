// The last minute as a line: the newest sample is at the right edge, the scale begins at zero.

import { attr, s } from "./dom.js";
import { rate } from "./format.js";

const SAMPLES = 60;
const WIDTH = 120;
const HEIGHT = 28;

export function sparkline() {
  return s(
    "svg",
    { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    s("path", { class: "area" }),
    s("path", { class: "line" }),
  );
}

/** `top` shares one scale between lines that stand below each other; by default each has its own. */
export function drawSparkline(node, values, top = 0) {
  const shown = values.slice(-SAMPLES);
  const highest = Math.max(top, ...shown, 1e-9);
  const step = WIDTH / (SAMPLES - 1);
  const x = (index) => (WIDTH - (shown.length - 1 - index) * step).toFixed(1);
  const y = (value) => (HEIGHT - 2 - (value / highest) * (HEIGHT - 5)).toFixed(1);
  const line = shown.map((value, index) => `${index ? "L" : "M"}${x(index)} ${y(value)}`).join("");
  attr(node.children[0], "d", shown.length > 1 ? `${line}V${HEIGHT}H${x(0)}Z` : "");
  attr(node.children[1], "d", shown.length > 1 ? line : "");
  const range = shown.length
    ? `last ${shown.length} s: ${rate(Math.min(...shown))} to ${rate(Math.max(...shown))} per second`
    : "no samples yet";
  attr(node, "aria-label", range);
}
