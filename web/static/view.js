// What the reader chose to see. It stands in the address bar, so that a view can be kept, sent and reloaded.

const DEFAULTS = { q: "", sort: "id", dir: "asc", problems: "", kinds: "", closed: "" };
const parameters = new URLSearchParams(location.search);

export const view = Object.fromEntries(
  Object.entries(DEFAULTS).map(([name, value]) => [name, parameters.get(name) ?? value]),
);

const listeners = new Set();
export const onView = (listener) => listeners.add(listener);

export function setView(changes) {
  Object.assign(view, changes);
  const query = new URLSearchParams(Object.entries(view).filter(([name, value]) => value && value !== DEFAULTS[name]));
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  for (const listener of listeners) listener();
}

export const listOf = (name) => new Set(view[name].split(",").filter(Boolean));

export function toggle(name, item) {
  const items = listOf(name);
  if (!items.delete(item)) items.add(item);
  setView({ [name]: [...items].join(",") });
}

const words = () => view.q.toLowerCase().split(/\s+/).filter(Boolean);

const serviceText = (service) =>
  [service.id, service.state, service.scheduler, service.vip_group ?? "", service.check, service.status].join(" ").toLowerCase();
const serverText = (server) =>
  [server.id, server.health, server.health_reason, server.forward, server.status, server.drain ? "drain drained draining" : ""]
    .join(" ")
    .toLowerCase();

/**
 * The services to show, each with the servers to show. Every word must be found in the service, or in the server. A
 * service whose own text has all words keeps all its servers.
 */
export function filtered(services, serverTroubled, serviceTroubled) {
  const wanted = words();
  const result = [];
  for (const service of services) {
    if (view.problems && !serviceTroubled(service)) continue;
    const own = serviceText(service);
    let servers = service.servers;
    if (!wanted.every((word) => own.includes(word))) {
      servers = servers.filter((server) => {
        const all = `${own} ${serverText(server)}`;
        return wanted.every((word) => all.includes(word));
      });
      if (!servers.length) continue;
    }
    if (view.problems && servers.some(serverTroubled)) servers = servers.filter(serverTroubled);
    result.push({ service, servers });
  }
  return result;
}

export const isFiltered = () => Boolean(view.q || view.problems);
