// Talking to the node: requests with the CSRF token, and the one stream of events.

export const EVENTS_KEPT = 2000; // by the node in its journal, and by this page

let csrf = "";

/** Who we are; sends the browser to the login form if nobody. */
export async function openSession() {
  const answer = await fetch("/api/v1/session");
  if (answer.status === 401) {
    location.assign("/login");
    return null;
  }
  if (!answer.ok) throw new Error(`session: ${answer.status}`);
  const session = await answer.json();
  csrf = session.csrf;
  return session;
}

/** A request. Resolves to the answer's JSON; rejects with the node's own words. */
async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
      body: method === "GET" ? undefined : JSON.stringify(body ?? {}),
    });
  } catch {
    throw new Error("The node does not answer; nothing was changed as far as this page knows.");
  }
  const result = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(result.error?.message ?? `${method} ${path}: ${answer.status}`);
  return result;
}

/** All events that the node keeps, oldest first. */
export async function wholeJournal() {
  const answer = await fetch(`/api/v1/events?limit=${EVENTS_KEPT}`);
  if (!answer.ok) throw new Error(`GET /api/v1/events: ${answer.status}.`);
  return (await answer.json()).events;
}

const path = (service, server) => `/api/v1/services/${encodeURIComponent(service)}/servers/${encodeURIComponent(server)}`;

export const patchServer = (service, server, changes) => ask("PATCH", path(service, server), changes);

const handoverPath = (group) => `/api/v1/vip-groups/${encodeURIComponent(group)}/handover`;

export const handover = (group) => ask("POST", handoverPath(group));

/** Who would take the group over: a node's name, "" = a Backup, if there is one. Rejects if it may not be given up. */
export const heirOf = async (group) => (await ask("GET", handoverPath(group))).to;

export async function logOut() {
  await fetch("/logout", { method: "POST", headers: { "X-CSRF-Token": csrf }, redirect: "manual" });
  location.assign("/login");
}

const EVENTS = ["status", "services", "journal", "reset", "tick"];
const RETRY_MS = 2000;

/**
 * One stream per visible tab (browsers allow six connections to one host). Calls on.status(data) and so on, and
 * on.link("live" | "lost"). Resumes the journal where it stopped.
 */
export function openStream(on) {
  let source = null;
  let lastId = "";
  let timer = 0;

  function open() {
    close();
    const resume = lastId ? `&last_event_id=${encodeURIComponent(lastId)}` : "";
    source = new EventSource(`/api/v1/stream?delta=1${resume}`);
    for (const name of EVENTS) {
      source.addEventListener(name, (message) => {
        lastId = message.lastEventId || lastId;
        on.link("live");
        on[name](JSON.parse(message.data));
      });
    }
    source.onerror = () => {
      on.link("lost");
      // CONNECTING: the browser tries again by itself. CLOSED: it was refused; perhaps the session has ended.
      if (source.readyState === EventSource.CLOSED) {
        clearTimeout(timer);
        timer = setTimeout(() => openSession().then((session) => session && open(), open), RETRY_MS);
      }
    };
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  if (!document.hidden) open();
}
