// Where everything stands in the topology. Pure: the same data and width give the same picture, so nothing ever jumps.
// Four columns: clients, gateways, services, servers. On a narrow screen clients and gateways are rows above the rest.

export const MAX_SERVICES = 8;
export const MAX_SERVERS = 6; // per service
const NARROW = 700;
const WIDTHS = { client: 108, gateway: 176, service: 208, server: 212 };
const HEIGHTS = { client: 62, service: 46, server: 40, more: 26 };
const GAP = { server: 6, group: 18, gateway: 34 };
const ROLE_LINE = 17;
const GUTTER = 18; // narrow: where the lines from the gateways run down

const gatewayHeight = (gateway) => 34 + ROLE_LINE * Math.max(1, gateway.lines.length);

/** model {client, gateways, services: [{..., servers, hiddenServers}], hiddenServices} -> {nodes, edges, height, narrow} */
export function layout(model, width) {
  const narrow = width < NARROW;
  const nodes = [];
  const place = (item, kind, x, y, w, h) => {
    const node = { ...item, kind, x, y, w, h };
    nodes.push(node);
    return node;
  };
  const top = narrow ? placeRows(model, width, place) : 0;
  const serviceX = narrow ? GUTTER : columnX(width, 2);
  const serviceW = narrow ? (width - GUTTER - 24) * 0.44 : WIDTHS.service;
  const serverX = narrow ? GUTTER + serviceW + 24 : columnX(width, 3);
  const serverW = narrow ? width - serverX : WIDTHS.server;

  let y = top;
  for (const service of model.services) {
    const start = y;
    for (const server of service.servers) {
      place(server, "server", serverX, y, serverW, HEIGHTS.server);
      y += HEIGHTS.server + GAP.server;
    }
    if (service.more) {
      place(service.more, "more", serverX, y, serverW, HEIGHTS.more);
      y += HEIGHTS.more + GAP.server;
    }
    const end = Math.max(y - GAP.server, start + HEIGHTS.service);
    place(service, "service", serviceX, (start + end - HEIGHTS.service) / 2, serviceW, HEIGHTS.service);
    y = end + GAP.group;
  }
  if (model.more) {
    place(model.more, "more", serviceX, y, serviceW, HEIGHTS.more);
    y += HEIGHTS.more + GAP.group;
  }
  const height = narrow ? y - GAP.group : placeColumns(model, width, y - GAP.group, place, nodes);
  return { nodes, edges: connect(model, nodes, narrow), height, narrow };
}

function columnX(width, column) {
  const widths = [WIDTHS.client, WIDTHS.gateway, WIDTHS.service, WIDTHS.server];
  const gap = (width - widths.reduce((sum, one) => sum + one)) / 3;
  return widths.slice(0, column).reduce((sum, one) => sum + one + gap, 0);
}

/** Clients and gateways beside the services, in the middle of their height. Returns the whole height. */
function placeColumns(model, width, servicesHeight, place, nodes) {
  const gatewaysHeight = model.gateways.reduce((sum, one) => sum + gatewayHeight(one) + GAP.gateway, -GAP.gateway);
  const height = Math.max(servicesHeight, gatewaysHeight, HEIGHTS.client);
  const shift = (height - servicesHeight) / 2;
  for (const node of nodes) node.y += shift;
  place(model.client, "client", 0, (height - HEIGHTS.client) / 2, WIDTHS.client, HEIGHTS.client);
  let y = (height - gatewaysHeight) / 2;
  for (const gateway of model.gateways) {
    place(gateway, "gateway", columnX(width, 1), y, WIDTHS.gateway, gatewayHeight(gateway));
    y += gatewayHeight(gateway) + GAP.gateway;
  }
  return height;
}

/** Narrow: clients above gateways above everything else. Returns where the services begin. */
function placeRows(model, width, place) {
  place(model.client, "client", 0, 0, width, 44);
  const perRow = Math.max(1, Math.min(2, model.gateways.length));
  const w = (width - 30 * (perRow - 1)) / perRow;
  let y = 44 + 24;
  for (let index = 0; index < model.gateways.length; index += perRow) {
    const row = model.gateways.slice(index, index + perRow);
    const h = Math.max(...row.map(gatewayHeight));
    row.forEach((gateway, column) => place(gateway, "gateway", column * (w + 30), y, w, h));
    y += h + 24;
  }
  return y + 6;
}

function connect(model, nodes, narrow) {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const edges = [];
  const add = (kind, from, to, more, path, at = () => null) => {
    const [a, b] = [byId.get(from), byId.get(to)];
    if (a && b) edges.push({ id: `${from}>${to}`, from, to, kind, path: path(a, b), at: at(a, b), ...more });
  };
  const down = narrow ? below : beside;
  for (const gateway of model.gateways) {
    add("front", "client", gateway.id, { tone: gateway.serving ? "ok" : "standby", share: gateway.share }, down);
    for (const peer of gateway.syncs) add("sync", gateway.id, peer.id, { tone: peer.tone, label: peer.label }, (a, b) => between(a, b, narrow), labelPlace);
  }
  for (const service of model.services) {
    for (const gateway of service.from) add("serve", gateway, service.id, { tone: service.tone, share: service.share }, narrow ? gutter : beside);
    for (const server of service.servers) add("server", service.id, server.id, { tone: server.edge, share: server.share }, beside);
    if (service.more) add("more", service.id, service.more.id, { tone: "standby", share: 0 }, beside);
  }
  return edges;
}

const round = (value) => Math.round(value * 10) / 10;

function beside(a, b) {
  const [x1, y1, x2, y2] = [a.x + a.w, a.y + a.h / 2, b.x, b.y + b.h / 2].map(round);
  const bend = round((x2 - x1) * 0.5);
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}

function below(a, b) {
  const [x2, y2] = [b.x + b.w / 2, b.y].map(round);
  return `M${x2} ${round(a.y + a.h)}V${y2}`;
}

function gutter(a, b) {
  const [x1, y1, y2] = [a.x + Math.min(a.w / 2, 60), a.y + a.h, b.y + b.h / 2].map(round);
  return `M${x1} ${y1}C${x1} ${y1 + 16} 6 ${y1 + 8} 6 ${y1 + 26}V${y2 - 8}Q6 ${y2} 12 ${y2}H${b.x}`;
}

/** Between two gateways: vertical in columns, horizontal in rows. */
function between(a, b, narrow) {
  if (narrow) {
    const [left, right] = a.x < b.x ? [a, b] : [b, a];
    return `M${round(left.x + left.w)} ${round(left.y + left.h / 2)}H${round(right.x)}`;
  }
  const [upper, lower] = a.y < b.y ? [a, b] : [b, a];
  const x = round(upper.x + 24);
  return `M${x} ${round(upper.y + upper.h)}V${round(lower.y)}`;
}

/** Beside the vertical line between two gateways. */
function labelPlace(a, b) {
  const [upper, lower] = a.y < b.y ? [a, b] : [b, a];
  return [round(upper.x + 34), round((upper.y + upper.h + lower.y) / 2 + 4)];
}

/** All that lies on a way through `id`: what is before it and what is behind it. */
export function onPath(edges, id) {
  const found = new Set([id]);
  const walk = (start, near, far) => {
    const todo = [start];
    while (todo.length) {
      const at = todo.pop();
      for (const edge of edges) {
        if (edge.kind === "sync" || edge[near] !== at || (edge.kind === "front" && edge.tone === "standby" && id !== edge.to)) continue;
        found.add(edge.id);
        if (!found.has(edge[far])) todo.push(edge[far]);
        found.add(edge[far]);
      }
    }
  };
  walk(id, "to", "from");
  walk(id, "from", "to");
  return found;
}
