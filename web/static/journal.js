// What happened, to what, why and by whom; newest first.

import { attr, h, keyed, text } from "./dom.js";
import { clock, dateTime, duration, plural } from "./format.js";
import { nodeNow, state } from "./state.js";
import { listOf, toggle } from "./view.js";

const KINDS = ["config", "store", "health", "election", "dataplane", "sync", "node"];
const SHOWN = 200;

const list = document.getElementById("journal");
const kinds = document.getElementById("kinds");

for (const kind of KINDS) {
  kinds.append(h("button", { class: `kind kind-${kind}`, "aria-pressed": "false", onclick: () => toggle("kinds", kind) }, kind));
}

function tone(event) {
  if (/\b(down|lost|failed|error|unreachable|refused|rejected|full|not)\b/.test(event.message)) return "bad";
  if (/\b(up|active|connected|in-sync|recovered|programmed)\b/.test(event.message)) return "ok";
  return "";
}

/** "SERVICE/SERVER" may break behind the slash. */
const breakable = (what) => what.split("/").flatMap((part, index) => (index ? ["/", h("wbr"), part] : [part]));

function create(event) {
  if (event.gap) return h("li", { class: "gap" }, `${plural(event.gap, "event")} not shown here`);
  return h("li", { "data-tone": tone(event) || null },
    h("time", { datetime: new Date(event.time * 1000).toISOString() }, clock(event.time)),
    h("code", {}, ...breakable(event.what)), h("span", { class: `kind kind-${event.kind}` }, event.kind),
    h("p", {}, h("b", {}, event.message), event.why && h("span", {}, `: ${event.why}`), event.who && h("span", {}, `, by ${event.who}`)));
}

function update(node, event) {
  if (!event.gap) attr(node.firstChild, "title", `${dateTime(event.time)}, ${duration(nodeNow() - event.time)} ago`);
}

function empty(chosen) {
  if (!state.status) return "Waiting for the first frame …";
  if (chosen.size) return `No event of kind ${[...chosen].join(" or ")} among the ${state.events.length} known ones.`;
  return `Nothing has happened since ${state.status.node} started ${duration(nodeNow() - state.status.started)} ago.`;
}

export function renderJournal() {
  const chosen = listOf("kinds");
  for (const button of kinds.children) attr(button, "aria-pressed", String(chosen.has(button.textContent)));
  const found = state.events.filter((event) => !chosen.size || chosen.has(event.kind)).slice(-SHOWN).reverse();
  const items = found.length ? found : [{ none: empty(chosen), seq: "none" }];
  keyed(list, items, (event) => (event.none ? "none" : `${event.seq} ${event.time ?? ""}`), (event) => (event.none ? h("li", { class: "empty" }) : create(event)),
    (node, event) => (event.none ? text(node, event.none) : update(node, event)));
}

