// Services and their servers as one table: a body per service, sorted, filtered, each row updated in place.

import { askWeight, toggleDrain } from "./actions.js";
import { attr, h, keyed, mark, setMark, text } from "./dom.js";
import { bits, bytes, clock, count, dateTime, duration, plural, rate, splitId } from "./format.js";
import { healthOf, isError, serverSign, serverTroubled, serviceSign, serviceTroubled, takesConnections } from "./health.js";
import { drawSparkline, sparkline } from "./sparkline.js";
import { historyOf, nodeNow, state } from "./state.js";
import { filtered, isFiltered, listOf, setView, toggle, view } from "./view.js";

const PAGE_SERVICES = 50;
const PAGE_SERVERS = 20; // rows per service until "n more" is pressed

const RANK = { bad: 0, warn: 1, drain: 2, none: 3, ok: 4 };
const weightOf = (service, pick) => service.servers.reduce((sum, server) => sum + (pick(server) ?? 0), 0);
const sortText = (id) => id.replace(/\d+/g, (digits) => digits.padStart(5, "0"));

// name, heading, explanation, and what services and servers are sorted by (null: the node's own order)
const COLUMNS = [
  { name: "id", heading: "Service / server", title: "Protocol, address and port", of: (one) => sortText(one.id) },
  { name: "state", heading: "State", title: "Result of the health checks, and since when", service: (one) => RANK[serviceSign(one).tone], server: (one) => RANK[serverSign(one).tone] },
  { name: "weight", heading: "Weight", title: "Configured weight → effective weight (what the data plane has now)", service: (one) => weightOf(one, (s) => s.effective_weight), server: (one) => one.effective_weight ?? -1, number: true },
  { name: "active", heading: "Active", title: "Established connections; below: all other tracked ones", of: (one) => one.counters.active, number: true },
  { name: "rate", heading: "Conn/s", title: "New connections per second, over the last second", of: (one) => one.rates.connections, number: true },
  { name: "trend", heading: "Last minute", title: "New connections per second over the last 60 s" },
  { name: "in", heading: "In", title: "From clients; below: total since the last zero", of: (one) => one.rates.bytes_in, number: true },
  { name: "out", heading: "Out", title: "To clients; below: total since the last zero (0 with direct routing and tunnels: replies bypass the gateway)", of: (one) => one.rates.bytes_out, number: true },
  { name: "status", heading: "Data plane", title: "Store revision at which this was last programmed, or the error" },
  { name: "actions", heading: "", title: "" },
];

const expanded = new Set(); // services whose "n more" was pressed
let allServices = false;

// --- frame ---

const headings = COLUMNS.map((column) => {
  const sortable = column.of || column.server;
  const label = sortable
    ? h("button", { onclick: () => sortBy(column) }, column.heading, h("span", { class: "arrow", "aria-hidden": "true" }))
    : column.heading || h("span", { class: "visually-hidden" }, "Actions");
  return h("th", { scope: "col", class: `c-${column.name}`, title: column.title || null }, label);
});
const table = h("table", {}, h("thead", {}, h("tr", {}, ...headings)));
const emptyNote = h("p", { class: "empty" });
const moreServices = h("button", { class: "quiet more", onclick: () => { allServices = true; renderTable(); } });
document.getElementById("rows").append(table, emptyNote, moreServices);

function sortBy(column) {
  const first = column.number ? "desc" : "asc";
  const dir = view.sort === column.name ? (view.dir === "asc" ? "desc" : "asc") : first;
  setView({ sort: column.name, dir });
}

const places = new Map(); // id -> key by which it was last placed
let placedBy = "";

/**
 * By the sort key, then in the node's order. While the pointer or the focus is in the table, what stands there keeps
 * its place: nobody shall press the button of a row that has just moved.
 */
function sorted(items, idOf, pick) {
  const sign = view.dir === "desc" ? -1 : 1;
  const hold = placedBy === `${view.sort} ${view.dir}` && table.matches(":hover, :focus-within");
  const ranked = items.map((item, index) => {
    const id = idOf(item);
    if (!hold || !places.has(id)) places.set(id, pick(item));
    return { item, index, key: places.get(id) };
  });
  ranked.sort((a, b) => (a.key < b.key ? -sign : a.key > b.key ? sign : a.index - b.index));
  return ranked.map(({ item }) => item);
}

// --- rows ---

const lines = (name) => h("td", { class: `c-${name}`, "data-heading": COLUMNS.find((column) => column.name === name).heading || null }, h("span", { class: "main" }), h("span", { class: "sub" }));

function createRow(kind, name) {
  const state_ = lines("state");
  state_.firstChild.append(mark("unknown", "none"), h("span"), h("span", { class: "chip", hidden: true }));
  const cells = {
    name, state: state_, weight: lines("weight"), active: lines("active"), rate: lines("rate"),
    trend: h("td", { class: "c-trend" }, sparkline()), in: lines("in"), out: lines("out"), status: lines("status"),
    actions: h("td", { class: "c-actions" }),
  };
  const row = h("tr", { class: kind }, ...Object.values(cells));
  row._cells = cells;
  return row;
}

const put = (cell, main, sub = "", title = null) => {
  text(cell.children[0], main);
  text(cell.children[1], sub);
  attr(cell, "title", title);
};

function putState(cell, sign, chip, sub, title) {
  const [icon, word, extra] = cell.firstChild.children;
  setMark(icon, sign.mark, sign.tone);
  text(word, sign.word);
  attr(word, "class", `word tone-${sign.tone}`);
  extra.hidden = !chip;
  text(extra, chip ?? "");
  text(cell.children[1], sub);
  attr(cell, "title", title);
}

/** What services and servers have in common: traffic and status. */
function putTraffic(cells, object, history) {
  const { counters, rates } = object;
  put(cells.active, count(counters.active), `${count(counters.inactive)} inactive`, `${counters.connections} connections in all`);
  put(cells.rate, rate(rates.connections), `${count(counters.connections)} in all`, `as of ${clock(state.status.time)}`);
  drawSparkline(cells.trend.firstChild, history);
  put(cells.in, bits(rates.bytes_in), bytes(counters.bytes_in), `${count(rates.packets_in)} packets/s, ${counters.packets_in} packets in all`);
  put(cells.out, bits(rates.bytes_out), bytes(counters.bytes_out), `${count(rates.packets_out)} packets/s, ${counters.packets_out} packets in all`);
  const revision = /^programmed at revision (\d+)$/.exec(object.status);
  put(cells.status, revision ? `revision ${revision[1]}` : object.status, "", object.status);
  attr(cells.status.firstChild, "class", isError(object) ? "main tone-bad" : revision ? "main ok" : "main");
}

function createService({ service }) {
  const fold = h("button", { class: "fold", onclick: () => toggle("closed", service.id) });
  const [protocol, address] = splitId(service.id);
  const name = h("th", { scope: "rowgroup", class: "c-id" },
    h("span", { class: "main" }, fold, h("span", { class: "protocol" }, protocol), h("code", {}, address)), h("span", { class: "sub" }), h("span", { class: "sub" }));
  const row = createRow("service", name);
  row._cells.fold = fold;
  const body = h("tbody", { "data-row": service.id, tabindex: "-1" }, row);
  body._row = row;
  body._more = h("button", { class: "quiet small", onclick: () => { expanded.add(service.id); renderTable(); } });
  near.observe(body);
  body._moreRow = h("tr", { class: "more" }, h("td", { colspan: COLUMNS.length }, body._more));
  return body;
}

function serviceFacts(service) {
  const flags = service.scheduler_flags.length ? ` (${service.scheduler_flags.join(", ")})` : "";
  return [
    `${service.scheduler}${flags}`, service.vip_group && `VIP group ${service.vip_group}`,
    service.persistent_s && `persistent ${duration(service.persistent_s)}`, service.one_packet && "one packet",
    service.check || "not checked", service.access,
  ].filter(Boolean).join(" · ");
}

/** What the data plane did about packets that would have opened a connection; empty as long as that is nothing. */
function admissionFacts({ admission }) {
  if (!admission) return "";
  const told = (what, counted) => {
    const parts = counted.filter(([, packets]) => packets).map(([name, packets]) => `${name} ${count(packets)}`);
    return parts.length ? `${what}: ${parts.join(", ")}` : "";
  };
  const { refused, cookies_sent, cookies_accepted, cookies_refused, mss_clamped } = admission;
  return [
    told("refused", Object.entries(refused)),
    told("SYN cookies", [["sent", cookies_sent], ["accepted", cookies_accepted], ["refused", cookies_refused]]),
    told("MSS", [["clamped", mss_clamped]]),
  ].filter(Boolean).join(" · ");
}

// A body far from the window is not renewed until it comes near: a thousand rows cost as much as fifty.
const NEAR = "1000px 0px";
const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target._away = !isIntersecting;
    if (isIntersecting && target._missed) updateService(target, target._missed);
  }
}, { rootMargin: NEAR });

function updateService(body, group) {
  body._missed = body._away ? group : null;
  if (!body._away) fillService(body, group);
}

function fillService(body, { service, servers }) {
  const cells = body._row._cells;
  const closed = listOf("closed").has(service.id);
  attr(cells.fold, "aria-expanded", String(!closed));
  attr(cells.fold, "aria-label", `${closed ? "Show" : "Hide"} the servers of ${service.id}`);
  text(cells.name.children[1], serviceFacts(service));
  text(cells.name.children[2], admissionFacts(service));
  attr(cells.name.children[2], "title", "Packets since the last zero; lbctl explain tells more of a reason");
  const taking = service.servers.filter(takesConnections).length;
  putState(cells.state, serviceSign(service), null, `${taking} of ${service.servers.length} in rotation`, null);
  const [wanted, now] = [weightOf(service, (one) => one.configured_weight), weightOf(service, (one) => one.effective_weight)];
  put(cells.weight, wanted === now ? `${now}` : `${wanted} → ${now}`, "sum");
  attr(cells.weight, "data-differs", wanted !== now);
  putTraffic(cells, service, service.history);

  const all = expanded.has(service.id);
  const shown = closed ? [] : all ? servers : servers.slice(0, PAGE_SERVERS);
  const hidden = closed ? 0 : servers.length - shown.length;
  text(body._more, `${hidden} more of ${plural(servers.length, "server")}`);
  const rows = [{ first: true }, ...shown.map((server) => ({ server }))];
  if (hidden) rows.push({ last: true });
  else if (!closed && !service.servers.length) rows.push({ none: true });
  keyed(body, rows, (item) => (item.server ? item.server.id : Object.keys(item)[0]),
    (item) => item.first ? body._row : item.last ? body._moreRow : item.none ? noServers(service) : createServer(service, item.server),
    (row, item) => item.server && updateServer(row, service, item.server));
}

const noServers = (service) => h("tr", { class: "more" }, h("td", { colspan: COLUMNS.length, class: "muted" },
  `No server. Every connection to ${service.id} is refused until one is added.`));

function createServer(service, server) {
  const row = createRow("server", h("th", { scope: "row", class: "c-id" }, h("span", { class: "main" }, h("code", {}, server.id)), h("span", { class: "sub" })));
  attr(row, "data-row", `${service.id}/${server.id}`);
  attr(row, "tabindex", "-1");
  const weight = h("button", { class: "weight", onclick: () => askWeight(...row._now) });
  row._cells.weight.firstChild.replaceChildren(weight);
  const drain = h("button", { class: "small", onclick: async () => {
    drain.disabled = true;
    await toggleDrain(...row._now);
    drain.disabled = false;
  } });
  row._cells.actions.append(drain);
  Object.assign(row._cells, { weightButton: weight, drain });
  return row;
}

function updateServer(row, service, server) {
  const cells = row._cells;
  const now = nodeNow();
  row._now = [service, server];
  text(cells.name.children[1], server.forward + (server.upper_threshold ? ` · at most ${server.upper_threshold} connections` : ""));
  const checked = server.last_checked ? `checked ${duration(now - server.last_checked)} ago, ` : "";
  const since = server.health === "unchecked" ? "" : `for ${duration(now - server.health_since)}`;
  putState(cells.state, healthOf(server), server.drain ? serverSign({ ...server, health: "up" }).word : null,
    [server.health_reason, since].filter(Boolean).join(" · "),
    `${checked}${server.health} since ${dateTime(server.health_since)}${server.health_reason ? `: ${server.health_reason}` : ""}`);
  const effective = server.effective_weight ?? "–";
  const differs = effective !== server.configured_weight;
  text(cells.weightButton, differs ? `${server.configured_weight} → ${effective}` : `${effective}`);
  attr(cells.weightButton, "aria-label", `Weight of ${server.id}: configured ${server.configured_weight}, effective ${server.effective_weight ?? "none"}. Change`);
  attr(cells.weightButton, "title", `configured ${server.configured_weight} → effective ${server.effective_weight ?? "none: not in the data plane"}; click to change`);
  attr(cells.weight, "data-differs", differs);
  putTraffic(cells, server, historyOf(service, server));
  attr(row, "data-tone", serverSign(server).tone);
  text(cells.drain, server.drain ? "Undrain" : "Drain");
  attr(cells.drain, "aria-label", `${server.drain ? "Undrain" : "Drain"} ${server.id} in ${service.id}`);
  attr(cells.drain, "class", server.drain ? "small undrain" : "small");
  const foreign = service.foreign || service.state === "foreign";
  cells.drain.hidden = foreign;
  cells.weightButton.disabled = foreign;
}

// --- the whole ---

function emptyText() {
  if (!state.status) return "Waiting for the first frame …";
  if (!state.services.length) return `No services are configured in cluster ${state.status.cluster}, and the data plane holds none.`;
  if (view.problems && !view.q) return `No problems: all ${plural(state.services.length, "service")} are ok.`;
  return `Filtered out: none of ${plural(state.services.length, "service")} matches “${view.q}”${view.problems ? " among those with problems" : ""}.`;
}

export function renderTable() {
  const column = COLUMNS.find((one) => one.name === view.sort) ?? COLUMNS[0];
  COLUMNS.forEach((one, index) => {
    attr(headings[index], "aria-sort", one === column ? (view.dir === "desc" ? "descending" : "ascending") : null);
  });
  const found = filtered(state.services, serverTroubled, serviceTroubled);
  const natural = column.name === "id" && view.dir === "asc"; // the node sorts by family, protocol, address, port
  const groups = natural ? found : sorted(found, ({ service }) => service.id, ({ service }) => (column.of ?? column.service)(service))
    .map(({ service, servers }) => ({ service, servers: sorted(servers, (one) => `${service.id}/${one.id}`, column.of ?? column.server) }));
  placedBy = `${view.sort} ${view.dir}`;
  const shown = allServices ? groups : groups.slice(0, PAGE_SERVICES);
  keyed(tableBodies, shown, ({ service }) => service.id, createService, updateService);
  table.hidden = !shown.length;
  emptyNote.hidden = Boolean(shown.length);
  text(emptyNote, emptyText());
  moreServices.hidden = shown.length === groups.length;
  text(moreServices, `${groups.length - shown.length} more services`);
  const servers = groups.reduce((sum, group) => sum + group.servers.length, 0);
  const all = state.services.reduce((sum, service) => sum + service.servers.length, 0);
  text(document.getElementById("count"), isFiltered()
    ? `${groups.length} of ${plural(state.services.length, "service")}, ${servers} of ${plural(all, "server")}`
    : `${plural(groups.length, "service")}, ${plural(servers, "server")}`);
}

// keyed() owns all children of its parent; the table's head must not be among them.
const tableBodies = { get firstChild() { return table.tHead.nextSibling; }, insertBefore: (node, before) => table.insertBefore(node, before) };

/** Scroll to the row of a service or server, open what hides it, and show it for a moment. */
export function revealRow(key) {
  const service = state.services.find((one) => key === one.id || key.startsWith(`${one.id}/`));
  if (service && listOf("closed").has(service.id)) toggle("closed", service.id);
  if (service && key !== service.id) expanded.add(service.id);
  allServices = true;
  renderTable();
  for (const body of table.tBodies) if (body._missed && body.dataset.row === service?.id) fillService(body, body._missed);
  const row = table.querySelector(`[data-row="${CSS.escape(key)}"]`);
  if (!row) return;
  row.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  row.focus({ preventScroll: true });
}
