// The election of a VIP group as a time line: who became active or backup when, on which node, and why; newest first.
// This node's journal tells what happened here. Of the other nodes their present role is known, not what was before.

import { toast } from "./actions.js";
import { wholeJournal } from "./api.js";
import { attr, h, keyed, mark, text } from "./dom.js";
import { dateTime, duration, plural } from "./format.js";
import { roleSign } from "./health.js";
import { addEarlier, nodeNow, state } from "./state.js";

const SHOWN = 100;

let completed = null; // the list of events that was asked for; a reset of the stream begins another list

/** The stream begins with the newest events of the journal; elections are rare and often older. */
async function completeEvents() {
  if (completed === state.events) return;
  const events = (completed = state.events);
  try {
    const earlier = await wholeJournal();
    if (events === state.events) addEarlier(earlier);
  } catch (error) {
    toast(`The time line lacks its older events: ${error.message} Reload the page to try again.`, true);
  }
}

/** The state that an event tells of, or "". */
const stateOf = (event) => /^became (\w+)$/.exec(event.message)?.[1] ?? "";

function sign(entry) {
  if (entry.state) return roleSign(entry, !entry.lost);
  return entry.message === "has a problem" ? { mark: "degraded", tone: "warn" } : { mark: "unknown", tone: "none" };
}

/** How long a node was active: until its next change of state, or now. */
function withSpan(entry, index, entries) {
  if (entry.state !== "active" || entry.lost) return entry;
  const end = entries.slice(0, index).findLast((other) => other.node === entry.node && other.state);
  return { ...entry, span: end ? `active for ${duration(end.time - entry.time)}` : "active until now" };
}

function entriesOf(group) {
  const events = state.events.filter((event) => event.kind === "election" && event.what === group)
    .map((event) => ({ ...event, key: event.seq, state: stateOf(event) }));
  const told = new Set(events.filter((event) => event.state).map((event) => event.node));
  const roles = state.status.nodes.filter((node) => !told.has(node.name)).flatMap((node) =>
    node.roles.filter((role) => role.group === group && role.state !== "initialize").map((role) => ({
      key: `${node.name} ${role.state} ${role.since} ${node.reachable}`, time: role.since, node: node.name, state: role.state, message: `became ${role.state}`,
      why: role.reason, who: "", lost: node.reachable ? "" : `not heard of for ${duration(nodeNow() - node.seen)}`,
    })));
  return [...events, ...roles].sort((a, b) => a.time - b.time).reverse().map(withSpan);
}

function create(entry) {
  if (!entry.message) return h("li", { class: "empty" });
  const { mark: name, tone } = sign(entry);
  return h("li", { "data-tone": tone === "none" ? null : tone }, mark(name, tone),
    h("time", { datetime: new Date(entry.time * 1000).toISOString(), title: dateTime(entry.time) }),
    h("p", {}, h("code", {}, entry.node), " ", h("b", {}, entry.message), entry.why && `: ${entry.why}`, entry.who && `, by ${entry.who}`, " ", h("small")));
}

function update(node, entry) {
  if (!entry.message) return text(node, entry.note);
  text(node.querySelector("time"), `${duration(nodeNow() - entry.time)} ago`);
  text(node.querySelector("small"), entry.lost || entry.span || "");
}

/** A list that scrolls, and so takes the focus; while it has it, the full times are shown, as on hover. */
export const timeline = (group) =>
  h("div", { class: "timeline" }, h("ol", { tabindex: "0", "aria-label": `Election of VIP group ${group}, newest first` }), h("p", { class: "muted" }));

export function drawTimeline(node, group) {
  completeEvents();
  const { status } = state;
  const since = `${status.node} started ${duration(nodeNow() - status.started)} ago`;
  const entries = entriesOf(group);
  const items = entries.slice(0, SHOWN);
  const left = entries.length - items.length;
  if (left) items.push({ key: "left", note: `and ${plural(left, "older event")}: lbctl election ${group}` });
  if (!entries.length) items.push({ key: "none", note: `No node has become active or backup in ${group} since ${since}.` });
  keyed(node.firstChild, items, (item) => item.key, create, update);
  text(node.lastChild, `From the journal of ${status.node}, kept since ${since}${status.nodes.length > 1 ? "; of other nodes, their present role" : ""}.`);
  attr(node.lastChild, "hidden", !entries.length);
}
