// The way of a connection: clients, gateways with their roles, services, servers. Drawn as SVG, updated in place.

import { attr, h, keyed, s, text } from "./dom.js";
import { bits, clip, count, cut, duration, plural, rate, splitId } from "./format.js";
import { healthOf, roleSign, serverSign, serverTroubled, serviceSign, serviceTroubled, takesConnections } from "./health.js";
import { MAX_SERVERS, MAX_SERVICES, layout, onPath } from "./layout.js";
import { isStale, nodeNow, state } from "./state.js";
import { revealRow } from "./table.js";
import { filtered, isFiltered, setView, view } from "./view.js";

const NAME_PX = 7.3; // width of a character of the names (12 px monospace)
const SUB_PX = 5.7; // and of the lines below them (11 px), on average

const holder = document.getElementById("topology");
const edgeLayer = s("g", { class: "edges", "aria-hidden": "true" });
const flowLayer = s("g", { class: "flows", "aria-hidden": "true" });
const nodeLayer = s("g", { class: "nodes" });
const labelLayer = s("g", { class: "labels" });
const svg = s("svg", { class: "map", role: "group", "aria-label": "Clients, gateways, services and servers" }, edgeLayer, labelLayer, flowLayer, nodeLayer);
const emptyNote = h("p", { class: "empty" });
let current = { nodes: [], edges: [] };
let lit = null; // id of the node under the pointer or with the focus

// --- data -> model ---

function model() {
  const { status } = state;
  const chosen = filtered(state.services, serverTroubled, serviceTroubled);
  const shown = chosen.slice(0, MAX_SERVICES);
  const hidden = chosen.slice(MAX_SERVICES);
  const total = state.services.reduce((sum, one) => sum + one.rates.connections, 0);
  const services = shown.map(({ service, servers }) => serviceNode(service, servers, total));
  const troubled = hidden.filter(({ service }) => serviceTroubled(service)).length;
  return {
    client: { id: "client", name: "clients", sub: `${rate(total)}/s`, tone: "none", label: `Clients: ${rate(total)} new connections per second` },
    gateways: status.nodes.map((node, index) => gatewayNode(node, index === 0, total)),
    services,
    more: hidden.length ? { id: "more", name: `${hidden.length} more`, sub: troubled ? `${troubled} not ok` : "", tone: troubled ? "warn" : "none", label: `${hidden.length} more services: narrow the filter` } : null,
  };
}

function gatewayNode(node, isThis, total) {
  const { status } = state;
  const roles = isThis ? status.roles : node.roles;
  const lines = roles.slice(0, 3).map((role) => {
    const sign = roleSign(role, node.reachable);
    return { text: `${role.group}: ${sign.word}`, note: role.priority, mark: sign.mark, tone: sign.tone };
  });
  if (!node.reachable && !lines.length) lines.push({ text: "unreachable", mark: "down", tone: "bad" });
  if (!roles.length && node.reachable) lines.push({ text: "no VIP group", mark: "unknown", tone: "none" });
  if (roles.length > 3) lines[2] = { text: `${roles.length - 2} more groups`, mark: "unknown", tone: "none" };
  const serving = node.reachable && (roles.some((role) => role.state === "active") || (isThis && !roles.length));
  return {
    id: `node ${node.name}`, name: node.name, note: isThis ? "this node" : "", lines, serving,
    tone: node.reachable ? (serving ? "ok" : "none") : "bad", share: serving && total ? 1 : 0,
    label: `Gateway ${node.name}${isThis ? ", this node" : ""}. ${lines.map((line) => line.text).join(", ")}${node.reachable ? "" : `. Not heard of for ${duration(nodeNow() - node.seen)}`}`,
    syncs: isThis ? status.sync.filter((peer) => status.nodes.some((one) => one.name === peer.name)).map((peer) => ({
      id: `node ${peer.name}`, tone: peer.state === "in-sync" ? "ok" : "warn",
      label: peer.state === "in-sync" ? "connections in sync" : `connections: ${peer.state}`,
    })) : [],
  };
}

function serviceNode(service, servers, total) {
  const sign = serviceSign(service);
  const [protocol, address] = splitId(service.id);
  const taking = service.servers.filter(takesConnections).length;
  const from = state.status.nodes
    .map((node, index) => ({ node, roles: index ? node.roles : state.status.roles, isThis: index === 0 }))
    .filter(({ node, roles, isThis }) =>
      service.vip_group ? node.reachable && roles.some((role) => role.group === service.vip_group && role.state === "active") : isThis)
    .map(({ node }) => `node ${node.name}`);
  const orphan = from.length === 0;
  const facts = orphan ? `${sign.word} · no active gateway` : `${sign.word} · ${taking} of ${service.servers.length} · ${rate(service.rates.connections)}/s`;
  const hidden = servers.slice(MAX_SERVERS);
  const troubled = hidden.filter(serverTroubled).length;
  return {
    id: service.id, row: service.id, name: address, note: protocol, sub: facts, narrowSub: `${protocol} · ${facts}`, mark: sign.mark, tone: sign.tone, from,
    share: total ? service.rates.connections / total : 0,
    label: `Service ${service.id}, ${sign.word}, ${taking} of ${plural(service.servers.length, "server")} in rotation, ${rate(service.rates.connections)} connections per second, scheduler ${service.scheduler}${orphan ? ", no active gateway" : ""}`,
    servers: servers.slice(0, MAX_SERVERS).map((server) => serverNode(service, server)),
    more: hidden.length
      ? { id: `more ${service.id}`, row: service.id, name: `${hidden.length} more`, sub: troubled ? `${troubled} not ok` : "", tone: troubled ? "warn" : "none", label: `${hidden.length} more servers of ${service.id}` }
      : service.servers.length ? null : { id: `none ${service.id}`, row: service.id, name: "no servers", sub: "", tone: "bad", label: `${service.id} has no servers` },
  };
}

function serverNode(service, server) {
  const sign = serverSign(server);
  const health = healthOf(server);
  const traffic = `${count(server.counters.active)} open`;
  const sub = {
    bad: `${sign.word} · ${server.health_reason}`,
    drain: `${sign.word} · ${traffic}`,
  }[sign.tone] ?? `${sign.word} · weight ${server.effective_weight ?? "none"} · ${rate(server.rates.connections)}/s`;
  return {
    id: `${service.id}/${server.id}`, row: `${service.id}/${server.id}`, name: server.id, sub, mark: sign.mark, tone: sign.tone,
    edge: takesConnections(server) ? "ok" : sign.tone === "ok" ? "standby" : sign.tone,
    share: service.rates.connections ? server.rates.connections / service.rates.connections : 0,
    label: `Server ${server.id}, ${health.word}${server.drain ? `, ${serverSign(server).word}` : ""}${server.health_reason ? `, ${server.health_reason}` : ""}, weight ${server.configured_weight}, effective ${server.effective_weight ?? "none"}, ${traffic}, to clients ${bits(server.rates.bytes_out)}`,
  };
}

// --- model -> SVG ---

function createNode(node) {
  const group = s("g", { tabindex: "0", role: node.row || node.kind === "more" ? "button" : "img" }, s("title"), s("rect", { rx: 9 }));
  if (node.mark) group.append(s("use", { class: "sign", width: 12, height: 12 }));
  group.append(s("text", { class: "name" }), s("text", { class: "note" }), s("text", { class: "sub" }), s("g", { class: "lines" }));
  const open = () => (group._row ? revealRow(group._row) : node.kind === "more" && document.getElementById("filter").focus());
  group.addEventListener("click", open);
  group.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open();
    }
  });
  return group;
}

const part = (group, name) => group.querySelector(`:scope > .${name}`);

function updateNode(group, node) {
  group._id = node.id;
  group._row = node.row;
  attr(group, "class", `node ${node.kind} tone-${node.tone}${node.serving ? " serving" : ""}`);
  attr(group, "transform", `translate(${node.x.toFixed(1)} ${node.y.toFixed(1)})`);
  attr(group, "aria-label", node.label);
  text(group.firstChild, node.label);
  const rect = group.children[1];
  attr(rect, "width", node.w.toFixed(1));
  attr(rect, "height", node.h);
  const left = node.mark ? (current.narrow ? 27 : 32) : 12;
  const oneLine = node.kind === "more";
  const centred = node.kind === "client";
  const name = part(group, "name");
  const note = part(group, "note");
  const sub = part(group, "sub");
  const base = oneLine ? 17 : node.kind === "server" ? 17 : node.kind === "client" ? node.h / 2 - 2 : 20;
  const noteText = node.narrowSub && current.narrow ? "" : node.note ?? "";
  const noteRoom = noteText ? noteText.length * SUB_PX + 8 : 0;
  attr(name, "x", centred ? node.w / 2 : left);
  attr(name, "y", base);
  text(name, clip(node.name, Math.floor((node.w - left - 5 - noteRoom) / NAME_PX)));
  attr(note, "x", node.w - 11);
  attr(note, "y", base);
  text(note, noteText);
  attr(sub, "x", centred ? node.w / 2 : oneLine ? node.w - 11 : left);
  attr(sub, "y", oneLine ? base : base + 16);
  text(sub, cut((current.narrow && node.narrowSub) || node.sub || "", Math.floor((node.w - left - 6) / SUB_PX)));
  if (node.mark) {
    const sign = part(group, "sign");
    attr(sign, "x", current.narrow ? 9 : 11);
    attr(sign, "y", node.h / 2 - 6);
    attr(sign, "href", `#mark-${node.mark}`);
    attr(sign, "class", `sign tone-${node.tone}`);
  }
  keyed(part(group, "lines"), node.lines ?? [], (line) => line.text, createLine, (item, line) => {
    const index = node.lines.indexOf(line);
    attr(item, "transform", `translate(12 ${41 + 17 * index})`);
    attr(item.children[0], "href", `#mark-${line.mark}`);
    attr(item.children[0], "class", `sign tone-${line.tone}`);
    text(item.children[1], cut(line.text, Math.floor((node.w - 62) / SUB_PX)));
    attr(item.children[2], "x", node.w - 23);
    text(item.children[2], line.note ?? "");
  });
}

const createLine = () => s("g", {}, s("use", { y: -9, width: 10, height: 10 }), s("text", { class: "role", x: 16 }), s("text", { class: "note" }));

function updateEdge(path, edge) {
  attr(path, "d", edge.path);
  attr(path, "class", `edge ${edge.kind} tone-${edge.tone}`);
  attr(path, "stroke-width", edge.kind === "sync" ? 2 : (1.4 + 4.2 * Math.sqrt(Math.min(1, edge.share ?? 0))).toFixed(2));
}

/** Moving dots where connections flow; how fast stands for how many. */
function updateFlow(path, edge) {
  attr(path, "d", edge.path);
  attr(path, "class", `flow ${edge.share > 0.4 ? "fast" : edge.share > 0.1 ? "steady" : "slow"}`);
}

// The dots move in steps, ten a second: a CSS animation repaints with every frame of the screen and keeps a quarter of a
// core busy on a page that is open all day.
const STEP_MS = 100;
const PERIOD = 24; // px, of the dash pattern; speeds are whole multiples of a step, so every pattern closes
const still = matchMedia("(prefers-reduced-motion: reduce)");
let step = 0;
setInterval(() => {
  if (still.matches || document.hidden || state.link !== "live" || isStale()) return;
  step = (step + 1) % PERIOD;
  flowLayer.style.setProperty("--flow", step);
}, STEP_MS);

function highlight() {
  const way = lit && current.nodes.some((node) => node.id === lit) ? onPath(current.edges, lit) : null;
  svg.classList.toggle("focused", Boolean(way));
  for (const layer of [edgeLayer, flowLayer, nodeLayer]) {
    for (const [key, node] of layer._keyed ?? []) node.classList.toggle("lit", Boolean(way?.has(key)));
  }
}

for (const [begin, end] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
  svg.addEventListener(begin, (event) => {
    lit = event.target.closest(".node")?._id ?? null;
    highlight();
  });
  svg.addEventListener(end, () => {
    lit = null;
    highlight();
  });
}

function emptyText() {
  if (!state.status) return "Waiting for the first frame …";
  if (isFiltered()) return `None of ${plural(state.services.length, "service")} matches ${view.q ? `“${view.q}”` : "“problems only”"}.`;
  return `No services are configured. Try: lbctl apply -f, or etcdctl put /lbnode/${state.status.cluster}/services/tcp:192.0.2.10:80 '{}'`;
}

const clear = h("button", { class: "quiet small", onclick: () => {
  document.getElementById("filter").value = "";
  document.getElementById("only-problems").checked = false;
  setView({ q: "", problems: "" });
} }, "Clear the filter");

export function renderTopology() {
  const wanted = state.status && model();
  if (!wanted?.services.length) {
    text(emptyNote, emptyText());
    if (!emptyNote.isConnected) holder.replaceChildren(emptyNote);
    if (isFiltered() && state.status && !clear.isConnected) holder.append(clear);
    return;
  }
  if (!svg.isConnected) holder.replaceChildren(svg);
  const padding = getComputedStyle(holder);
  const width = Math.max(300, holder.clientWidth - parseFloat(padding.paddingLeft) - parseFloat(padding.paddingRight) - 6);
  current = layout(wanted, width);
  attr(svg, "viewBox", `-3 -3 ${width + 6} ${Math.ceil(current.height) + 6}`);
  attr(svg, "width", width + 6);
  attr(svg, "height", Math.ceil(current.height) + 6);
  const id = (item) => item.id;
  keyed(edgeLayer, current.edges, id, () => s("path"), updateEdge);
  keyed(labelLayer, current.narrow ? [] : current.edges.filter((edge) => edge.label), id, () => s("text"), (label, edge) => {
    attr(label, "x", edge.at[0]);
    attr(label, "y", edge.at[1]);
    text(label, edge.label);
  });
  keyed(flowLayer, current.edges.filter((edge) => edge.share > 0 && edge.tone !== "standby"), id, () => s("path"), updateFlow);
  keyed(nodeLayer, current.nodes, id, createNode, updateNode);
  highlight();
}
