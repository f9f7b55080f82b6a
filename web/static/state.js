// What the page knows, and how old it is. Frames from the stream go in, the parts read it.

import { EVENTS_KEPT } from "./api.js";

const HISTORY = 60; // samples, one per second
const LOAD_S = 10; // the CPUs' load is that of so many seconds
export const STALE_S = 5; // the node renews its status each second

export const state = {
  status: null,
  services: [], // in the node's order
  events: [], // oldest first; {gap: n} stands for n events that were lost on the way
  link: "connecting",
  canChange: true,
};

const byId = new Map();
let order = [];
let loads = []; // {time, packets}: the CPUs' counters within LOAD_S, oldest first
let clockOffset = 0; // the node's clock minus ours, seconds
const serverHistory = new Map(); // "SERVICE/SERVER" -> connections/s, oldest first
let received = 0; // our clock, seconds, when anything last came
let sampled = 0; // our clock, seconds, of the last sample in serverHistory

/** The node's clock now. */
export const nodeNow = () => Date.now() / 1000 + clockOffset;

/** Seconds since all this was true; null before the end of the first frame. */
export const dataAge = () =>
  (state.status && received ? Math.max(0, nodeNow() - state.status.time, Date.now() / 1000 - received) : null);

export const isStale = () => dataAge() !== null && dataAge() > STALE_S;

export const historyOf = (service, server) => serverHistory.get(`${service.id}/${server.id}`) ?? [];

/** Packets per second of each CPU lately; null: not known yet. */
export function cpuRates() {
  const [first, last] = [loads[0], loads.at(-1)];
  return loads.length > 1 ? last.packets.map((packets, cpu) => (packets - first.packets[cpu]) / (last.time - first.time)) : null;
}

export const apply = {
  status(status) {
    const { time, dataplane: { cpu_packets: packets } } = status;
    // What is larger, or newer, than now was counted by another process.
    loads = loads.filter((one) => one.time < time && time - one.time <= LOAD_S &&
      one.packets.length === packets.length && one.packets.every((before, cpu) => before <= packets[cpu]));
    loads.push({ time, packets });
    state.status = status;
  },
  services(frame) {
    for (const service of frame.services) byId.set(service.id, service);
    if (frame.ids) {
      order = frame.ids;
      const present = new Set(order);
      for (const id of byId.keys()) if (!present.has(id)) byId.delete(id);
    }
    state.services = order.map((id) => byId.get(id)).filter(Boolean);
  },
  journal(event) {
    const last = state.events.at(-1);
    if (last && event.seq <= last.seq) return;
    if (last && event.seq > last.seq + 1) state.events.push({ gap: event.seq - last.seq - 1, seq: event.seq - 0.5 });
    state.events.push(event);
    if (state.events.length > EVENTS_KEPT) state.events.splice(0, state.events.length - EVENTS_KEPT);
  },
  reset() {
    state.events = [];
  },
  /** Ends each frame, and comes alone while nothing changes. */
  tick({ time }) {
    received = Date.now() / 1000;
    clockOffset = time - received;
    if (received - sampled > 0.9) {
      sampled = received;
      sample();
    }
  },
  link(link) {
    state.link = link;
  },
};

/** What the node's journal has from before the stream's first event. */
export function addEarlier(events) {
  const first = state.events[0]?.seq ?? Infinity;
  state.events.unshift(...events.filter((event) => event.seq < first));
}

/** Once per second: the node keeps a history per service, this page one per server. */
function sample() {
  const present = new Set();
  for (const service of state.services) {
    for (const server of service.servers) {
      const key = `${service.id}/${server.id}`;
      present.add(key);
      const history = serverHistory.get(key) ?? [];
      history.push(server.rates.connections);
      if (history.length > HISTORY) history.shift();
      serverHistory.set(key, history);
    }
  }
  for (const key of serverHistory.keys()) if (!present.has(key)) serverHistory.delete(key);
}
