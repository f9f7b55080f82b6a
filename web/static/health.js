// What a state is called and how it looks: {word, mark, tone}. Pure. Health and what the operator asked for (drain)
// are two things and are shown as two; where there is room for one sign only, `serverSign` decides.

const SERVER = {
  up: { word: "up", mark: "up", tone: "ok" },
  down: { word: "down", mark: "down", tone: "bad" },
  unknown: { word: "unknown", mark: "unknown", tone: "none" },
  unchecked: { word: "unchecked", mark: "unchecked", tone: "ok" },
};
const SERVICE = {
  ok: { word: "ok", mark: "up", tone: "ok" },
  degraded: { word: "degraded", mark: "degraded", tone: "warn" },
  down: { word: "down", mark: "down", tone: "bad" },
  foreign: { word: "foreign", mark: "foreign", tone: "none" },
};

const other = (word) => ({ word, mark: "unknown", tone: "none" });

export const healthOf = (server) => SERVER[server.health] ?? other(server.health);

/** Down beats drain beats up: the worst thing that is true. */
export function serverSign(server) {
  const health = healthOf(server);
  if (server.health !== "down" && server.drain) {
    const open = server.counters.active + server.counters.inactive;
    return { word: open ? "draining" : "drained", mark: "drain", tone: "drain" };
  }
  return health;
}

export const serviceSign = (service) => SERVICE[service.state] ?? other(service.state);

export const isError = (object) => object.status.startsWith("error");

/** Does this server deserve attention? */
export const serverTroubled = (server) => server.health === "down" || server.drain || isError(server) || server.effective_weight === null;
export const serviceTroubled = (service) => service.state !== "ok" || isError(service) || service.servers.some(serverTroubled);

export const takesConnections = (server) => (server.effective_weight ?? 0) > 0;

/** VRRP state of a node in a VIP group. */
export function roleSign(role, reachable = true) {
  if (!reachable) return { word: "unreachable", mark: "down", tone: "bad" };
  if (role.problem) return { word: role.state, mark: "degraded", tone: "warn" };
  if (role.state === "active") return { word: "active", mark: "active", tone: "ok" };
  if (role.state === "backup") return { word: "backup", mark: "backup", tone: "none" };
  return { word: role.state, mark: "unknown", tone: "warn" };
}
