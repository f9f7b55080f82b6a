// What the operator can do, with what it will lead to said first where it hurts.

import { handover, heirOf, patchServer } from "./api.js";
import { h } from "./dom.js";
import { takesConnections } from "./health.js";
import { state } from "./state.js";

const WEIGHTED = new Set(["wrr", "wlc", "lblc", "lblcr", "sed", "nq", "sh", "dh", "mh"]);
const MAX_WEIGHT = 65535;

export function toast(message, bad = false) {
  const node = h("p", { class: bad ? "toast bad" : "toast" }, message);
  document.getElementById("toasts").append(node);
  setTimeout(() => node.remove(), bad ? 12_000 : 5_000);
}

async function run(what, action) {
  try {
    await action();
    toast(what);
  } catch (error) {
    toast(error.message, true);
  }
}

/** A modal question. `fields` is content between text and buttons; resolves to the form's data, or null. */
function ask({ title, body, confirm, danger = false, fields = [] }) {
  const dialog = document.getElementById("dialog");
  if (dialog.open) return null; // clicked twice while the node was asked
  const form = h("form", { method: "dialog" },
    h("h2", { id: "dialog-title" }, title), h("p", {}, body), ...fields,
    h("div", { class: "buttons" },
      h("button", { type: "button", class: "quiet", onclick: () => dialog.close("") }, "Cancel"),
      h("button", { value: "yes", class: danger ? "danger" : "primary", autofocus: !fields.length }, confirm)));
  dialog.replaceChildren(form);
  dialog.returnValue = "";
  dialog.showModal();
  dialog.querySelector("input")?.select();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? new FormData(form) : null), { once: true });
  });
}

const othersTaking = (service, server) => service.servers.filter((one) => one.id !== server.id && takesConnections(one)).length;

/** Drain, or end the drain. Asks only if nobody would be left to take new connections. */
export async function toggleDrain(service, server) {
  const drain = !server.drain;
  if (drain && takesConnections(server) && !othersTaking(service, server)) {
    const sure = await ask({
      title: `Drain the last server of ${service.id}?`,
      body: `${server.id} is the only server that takes new connections. After this, ${service.id} refuses every new connection; established ones stay.`,
      confirm: "Drain the last server",
      danger: true,
    });
    if (!sure) return;
  }
  await run(drain ? `${server.id} is being drained` : `${server.id} is back in rotation`, () =>
    patchServer(service.id, server.id, { drain }));
}

/** The share of new connections, in words: only for schedulers that go by weight. */
function share(service, server, weight) {
  if (!WEIGHTED.has(service.scheduler)) return `The scheduler ${service.scheduler} does not go by weight, except that 0 takes no new connections.`;
  const others = service.servers.filter((one) => one.id !== server.id).reduce((sum, one) => sum + (one.effective_weight ?? 0), 0);
  if (!(weight + others)) return "No server of this service would take new connections.";
  return `${((100 * weight) / (weight + others)).toFixed(0)} % of new connections${takesConnections(server) ? "" : ", once this server is in rotation"}.`;
}

export async function askWeight(service, server) {
  const effect = h("p", { class: "muted", role: "status" }, share(service, server, server.configured_weight));
  const input = h("input", {
    type: "number", name: "weight", min: 0, max: MAX_WEIGHT, step: 1, required: true, value: server.configured_weight, "aria-label": "Weight",
    oninput: () => effect.replaceChildren(share(service, server, Math.max(0, input.valueAsNumber || 0))),
  });
  const data = await ask({ title: `Weight of ${server.id}`, body: `in ${service.id}, from 0 to ${MAX_WEIGHT}`, confirm: "Set weight", fields: [input, effect] });
  if (!data) return;
  const weight = Number(data.get("weight"));
  await run(`${server.id} has weight ${weight}`, () => patchServer(service.id, server.id, { weight }));
}

export async function askHandover(group) {
  let heir;
  try {
    heir = await heirOf(group);
  } catch (error) {
    toast(error.message, true);
    return;
  }
  const role = state.status.nodes.find((node) => node.name === heir)?.roles.find((one) => one.group === group);
  const sure = await ask({
    title: `Hand over VIP group ${group}?`,
    body: heir
      ? `${heir}${role ? ` (priority ${role.priority})` : ""} is expected to take over at once.`
      : "The best backup takes over. It is not known here whether there is one: without, the addresses of this group answer nowhere until this node takes them back.",
    confirm: "Hand over",
    danger: !heir,
  });
  if (sure) await run(`${state.status.node} gives up ${group}`, () => handover(group));
}
