// The strip at the top (who, role, store, revision, age), the problems, the totals, and the node's details.

import { askHandover } from "./actions.js";
import { attr, h, keyed, mark, setMark, text } from "./dom.js";
import { bits, clock, count, dateTime, duration, plural, rate } from "./format.js";
import { roleSign, takesConnections } from "./health.js";
import { drawSparkline, sparkline } from "./sparkline.js";
import { cpuRates, dataAge, isStale, nodeNow, state } from "./state.js";
import { drawTimeline, timeline } from "./timeline.js";

const $ = (id) => document.getElementById(id);

// --- facts ---

function facts(status) {
  const now = nodeNow();
  const all = status.roles.map((role) => {
    const sign = roleSign(role);
    return {
      key: `role ${role.group}`,
      label: role.group,
      value: sign.word,
      sign,
      note: `priority ${role.priority}`,
      title: `VIP group ${role.group}: ${role.state} for ${duration(now - role.since)}. ${role.problem || role.reason}`,
      act: role.state === "active" ? { word: "Hand over", run: () => askHandover(role.group) } : null,
    };
  });
  if (!all.length) {
    all.push({ key: "alone", label: "VIP groups", value: "none", sign: { mark: "unknown", tone: "none" }, note: "", title: "No VIP group is configured: this node takes part in no election." });
  }
  const { store } = status;
  all.push({
    key: "store",
    label: store.kind,
    value: store.connected ? "connected" : "not connected",
    sign: store.connected ? { mark: "up", tone: "ok" } : { mark: "down", tone: "bad" },
    note: store.connected ? "" : `for ${duration(now - store.since)}`,
    title: `${store.endpoint || "no endpoint"} since ${dateTime(store.since)}${store.problem ? `: ${store.problem}` : ""}`,
  });
  const behind = status.revision - status.programmed_revision;
  all.push({
    key: "revision",
    label: "revision",
    value: `${status.programmed_revision} / ${status.revision}`,
    sign: behind ? { mark: "degraded", tone: "warn" } : { mark: "up", tone: "ok" },
    note: behind ? "programmed / latest" : "programmed",
    title: `Programmed in the data plane: ${status.programmed_revision}. Latest in the store: ${status.revision}.`,
  });
  return all;
}

function createFact() {
  const button = h("button", { class: "quiet small", onclick: () => button._run?.() });
  return h("div", { class: "fact" }, mark("unknown", "none"),
    h("div", {}, h("span", { class: "label" }), h("span", { class: "value" }, h("b"), h("small"))), button);
}

function updateFact(node, fact) {
  const [sign, body, button] = node.children;
  setMark(sign, fact.sign.mark, fact.sign.tone);
  text(body.children[0], fact.label);
  text(body.children[1].children[0], fact.value);
  text(body.children[1].children[1], fact.note);
  attr(node, "title", fact.title);
  button.hidden = !fact.act;
  text(button, fact.act?.word ?? "");
  button._run = fact.act?.run;
}

// --- totals ---

let totalHistory = [];

/** The connection table: its alarm, from 80 % on, is one of the node's problems. */
function tableTile(status) {
  const { connections, connections_max: size } = status.dataplane;
  const { dropped, untracked } = insertFailures(status.dataplane);
  const used = size ? `${((100 * connections) / size).toFixed(1)} % used` : "no limit but memory";
  const failed = dropped + untracked;
  return {
    key: "table", label: "Connection table", value: count(connections), unit: size ? `of ${count(size)}` : "",
    note: failed ? `${used}, ${count(failed)} had no room` : used,
    tone: status.problems.some((one) => one.where === "data plane" && one.field === "connections") ? "bad" : "",
  };
}

/** New connections without room in the table. */
const insertFailures = (plane) => ({ dropped: plane.drops["table-full"] ?? 0, untracked: plane.events.untracked ?? 0 });

function tiles() {
  const services = state.services;
  const servers = services.flatMap((service) => service.servers);
  const sum = (pick) => services.reduce((total, service) => total + pick(service), 0);
  const taking = servers.filter(takesConnections).length;
  const down = servers.filter((server) => server.health === "down").length;
  const drained = servers.filter((server) => server.drain).length;
  const troubled = services.filter((service) => service.state !== "ok").length;
  const length = Math.max(0, ...services.map((service) => service.history.length));
  totalHistory = Array.from({ length }, (_, index) =>
    sum((service) => service.history[service.history.length - length + index] ?? 0));
  const why = [down && `${down} down`, drained && `${drained} drained`].filter(Boolean).join(", ");
  return [
    { key: "rate", label: "New connections", value: rate(sum((one) => one.rates.connections)), unit: "/s", spark: totalHistory },
    { key: "open", label: "Open connections", value: count(sum((one) => one.counters.active)), unit: "active",
      note: `${count(sum((one) => one.counters.inactive))} inactive` },
    { key: "in", label: "From clients", value: bits(sum((one) => one.rates.bytes_in)), note: `${count(sum((one) => one.rates.packets_in))} packets/s` },
    { key: "out", label: "To clients", value: bits(sum((one) => one.rates.bytes_out)), note: `${count(sum((one) => one.rates.packets_out))} packets/s` },
    { key: "servers", label: "Servers in rotation", value: String(taking), unit: `of ${servers.length}`,
      note: why || (troubled ? `${plural(troubled, "service")} not ok` : `${plural(services.length, "service")} ok`),
      tone: down || troubled ? "bad" : drained ? "drain" : "ok" },
    tableTile(state.status),
  ];
}

function createTile(tile) {
  const head = h("span", { class: "label" });
  const value = h("span", { class: "value" }, h("b"), h("small"));
  return h("div", { class: "tile" }, head, value, tile.spark ? sparkline() : h("span", { class: "note" }));
}

function updateTile(node, tile) {
  attr(node, "data-tone", tile.tone || null);
  attr(node, "title", `as of ${clock(state.status.time)}`);
  const [head, value, last] = node.children;
  text(head, tile.label);
  // "1.2 Mbit/s": the unit is set smaller than the figure.
  const [figure, ...unit] = tile.unit ? [tile.value, tile.unit] : tile.value.split(" ");
  text(value.children[0], figure);
  text(value.children[1], unit.join(" "));
  if (tile.spark) drawSparkline(last, tile.spark);
  else text(last, tile.note);
}

// --- problems ---

function problems(status) {
  const found = status.problems.map((problem) => ({ ...problem }));
  for (const role of status.roles) {
    if (role.problem) found.push({ where: `VIP group ${role.group}`, field: "", message: role.problem, hint: "", severity: "error" });
  }
  for (const face of status.dataplane.interfaces) {
    if (face.error) found.push({ where: `interface ${face.name}`, field: "", message: face.error, hint: "", severity: "error" });
  }
  for (const node of status.nodes.slice(1)) {
    if (!node.reachable) found.push({ where: `node ${node.name}`, field: "", message: `not heard of for ${duration(nodeNow() - node.seen)}`, hint: "", severity: "error" });
    else if (node.problems) found.push({ where: `node ${node.name}`, field: "", message: `reports ${plural(node.problems, "problem")}`, hint: "see its own page", severity: "warning" });
  }
  return found;
}

function createProblem(problem) {
  const bad = problem.severity === "error";
  return h("article", { class: `problem ${problem.severity}` }, mark(bad ? "down" : "degraded", bad ? "bad" : "warn"),
    h("p", {}, h("span", { class: "visually-hidden" }, `${problem.severity}: `),
      h("code", {}, problem.where), problem.field && h("code", { class: "field" }, problem.field),
      h("span", { class: "message" }), h("span", { class: "hint muted" }, problem.hint)));
}

// --- details ---

function details(status) {
  const now = nodeNow();
  const plane = status.dataplane;
  const counted = (of) => Object.entries(of).filter(([, packets]) => packets)
    .map(([name, packets]) => `${name} ${count(packets)}`).join(", ") || "none";
  const packets = plane.cpu_packets.reduce((total, one) => total + one, 0);
  const rates = cpuRates();
  const shares = plane.cpu_packets.map((one, cpu) => [cpu, one]).filter(([, one]) => one)
    .map(([cpu, one]) => `CPU ${cpu}: ${((100 * one) / packets).toFixed(0)} %${rates ? ` (now ${rate(rates[cpu])}/s)` : ""}`);
  const { dropped, untracked } = insertFailures(plane);
  const rows = [
    ["Software", `lbnode ${status.version}, started ${dateTime(status.started)} (${duration(now - status.started)} ago)`],
    ["Store", `${status.store.kind} ${status.store.endpoint}, ${status.store.connected ? "connected" : "not connected"} since ${dateTime(status.store.since)} ${status.store.problem}`],
    ["Data plane", `${plane.kind}, ${plane.adopted ? "taken over from an earlier process" : "loaded by this process"}`],
    ...plane.interfaces.map((face) => [`Interface ${face.name}`, `${face.mode}: ${face.error || face.reason}`]),
    ...Object.entries(plane.sync_daemons).map(([name, daemon]) => [`Sync daemon (${name})`,
      `on ${daemon.interface}, id ${daemon.syncid}, group ${daemon.group} port ${daemon.port}`]),
    ...(status.foreign.length ? [["Foreign services", status.foreign.join(", ")]] : []),
    ["Dropped packets", counted(plane.drops)],
    ...("table-full" in plane.drops ? [["No room in the table",
      `${count(dropped)} packets of new connections dropped, ${count(untracked)} forwarded by hash without an entry`]] : []),
    ...(Object.keys(plane.events).length ? [["Other events", counted(plane.events)]] : []),
    ...(packets ? [["Packets by CPU", `${shares.join(", ")} of ${count(packets)}`]] : []),
    ...groups(status).map(({ group, role }) => [`VIP group ${group}`, role
      ? `${role.state}, priority ${role.priority}, since ${dateTime(role.since)}: ${role.reason}${lease(plane, role)}`
      : "this node takes no part in it", group]),
    ...status.sync.map((peer) => [`Synchronisation with ${peer.name}`,
      `${peer.state} (${peer.address}), ${count(peer.sent_records)} records sent, ${count(peer.received_records)} received, lag ${duration(peer.lag_s)}` +
      (peer.bad_datagrams ? `, ${plural(peer.bad_datagrams, "bad datagram")}` : "") +
      (peer.refused_records ? `, ${plural(peer.refused_records, "record")} of an older epoch refused` : "") + (peer.problem ? `: ${peer.problem}` : "")]),
  ];
  return rows.map(([name, value, group]) => ({ name, value, group }));
}

/** The VIP groups of all nodes, with this node's role in each. */
function groups(status) {
  const names = new Set([status, ...status.nodes].flatMap((node) => node.roles.map((role) => role.group)));
  return [...names].map((group) => ({ group, role: status.roles.find((role) => role.group === group) }));
}

// Until when the data plane serves the group's addresses if the election process stops extending it.
function lease(plane, role) {
  const found = plane.leases.find((one) => one.group === role.group);
  if (!found) return "";
  const left = found.remaining_s;
  if (left === null) return "; dark";
  return left > 0 ? `; lease ${Math.round(left * 1000)} ms` : `; dark for ${duration(-left)}`;
}

const createDetail = (row) => h("div", {}, h("dt"), h("dd", {}, h("p"), row.group && timeline(row.group)));

const detailList = h("dl", {});

export function renderHeader() {
  const { status } = state;
  if (!status) return;
  text($("node"), status.node);
  text($("cluster"), `cluster ${status.cluster}`);
  document.title = `${status.node} · lbnode`;
  keyed($("facts"), facts(status), (fact) => fact.key, createFact, updateFact);
  keyed($("tiles"), tiles(), (tile) => tile.key, createTile, updateTile);
  const found = problems(status);
  $("problems").hidden = !found.length;
  keyed($("problems"), found, (p) => `${p.severity} ${p.where} ${p.field} ${p.hint}`, createProblem,
    (node, problem) => text(node.querySelector(".message"), problem.message));
  if (!detailList.isConnected) $("detail-body").append(detailList);
  if ($("details").open) {
    keyed(detailList, details(status), (row) => row.name, createDetail, (node, row) => {
      text(node.children[0], row.name);
      text(node.children[1].firstChild, row.value);
      if (row.group) drawTimeline(node.children[1].lastChild, row.group);
    });
  }
  text($("version"), `lbnode ${status.version} on ${status.node}, page as of ${clock(status.time)}`);
}

/** The age of all figures; called often, also when nothing comes in any more. */
export function renderAge() {
  const age = dataAge();
  const stale = isStale();
  const lost = state.link === "lost";
  attr(document.body, "data-link", stale ? "stale" : lost ? "lost" : state.link);
  const outage = $("outage");
  outage.hidden = !stale;
  if (stale) {
    text(outage, `${lost ? "No connection to this node" : "This node has stopped renewing its figures"}. ` +
      `What you see was true ${duration(age)} ago, at ${clock(state.status.time)}. ${lost ? "Trying to reconnect …" : ""}`);
  }
  const label = state.link === "connecting" ? "connecting …" : lost ? "reconnecting …" : stale ? "stale" : "live";
  text($("age"), age === null ? label : `${label} · ${duration(age)} old`);
  attr($("age"), "title", "Age of every figure on this page. The node renews them each second.");
}
