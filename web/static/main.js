// Puts the parts together: frames come in, the page follows, at most once per animation frame.

import { logOut, openSession, openStream } from "./api.js";
import { renderAge, renderHeader } from "./header.js";
import { renderJournal } from "./journal.js";
import { apply } from "./state.js";
import { renderTable } from "./table.js";
import { renderTopology } from "./topology.js";
import { onView, setView, view } from "./view.js";

const AGE_MS = 250;

let scheduled = false;

function render() {
  scheduled = false;
  renderHeader();
  renderTopology();
  renderTable();
  renderJournal();
  renderAge();
}

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(render);
}

const filter = document.getElementById("filter");
const onlyProblems = document.getElementById("only-problems");
filter.value = view.q;
onlyProblems.checked = Boolean(view.problems);
filter.addEventListener("input", () => setView({ q: filter.value.trim() }));
onlyProblems.addEventListener("change", () => setView({ problems: onlyProblems.checked ? "1" : "" }));
onView(schedule);

document.addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement || document.querySelector("dialog[open]");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    filter.focus();
    filter.select();
  } else if (event.key === "Escape" && event.target === filter) {
    filter.value = "";
    setView({ q: "" });
    filter.blur();
  }
});

document.getElementById("details").addEventListener("toggle", schedule);
document.getElementById("logout").addEventListener("click", logOut);
new ResizeObserver(schedule).observe(document.getElementById("topology"));
setInterval(renderAge, AGE_MS);

schedule();
// null: nobody, and on the way to the login form. undefined: the node does not answer; the stream goes on trying.
const session = await openSession().catch(() => undefined);
document.getElementById("logout").hidden = session?.authenticated_by !== "cookie";
const on = Object.fromEntries(
  Object.entries(apply).map(([name, take]) => [name, (data) => {
    take(data);
    schedule();
  }]),
);
if (session !== null) openStream(on);
