"use strict";
// Opens the part that a link leads to, and brings the focus there.
function show() {
  const part = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (part && part.tagName === "DETAILS") {
    part.hidden = false;
    part.open = true;
    part.querySelector("summary").focus();
    part.scrollIntoView({ block: "start" });
  }
}
addEventListener("hashchange", show);
for (const link of document.querySelectorAll("a[href^='#step-']")) {
  link.addEventListener("click", () => {
    // The same link twice changes no hash.
    if (location.hash === link.getAttribute("href")) show();
  });
}
show();

// Arrow keys go from step to step of a picture.
for (const picture of document.querySelectorAll("svg.graph, svg.timeline")) {
  picture.addEventListener("keydown", (event) => {
    const steps = [...picture.querySelectorAll("a")];
    const at = steps.indexOf(document.activeElement);
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (at < 0 || !by) return;
    event.preventDefault();
    const next = steps[at + by];
    if (next) next.focus();
  });
}

// Shows only the steps in some states.
const filter = document.querySelector(".filter");
const groups = { ran: ["ran"], cached: ["cached", "same"], failed: ["failed", "stopped"] };
filter.hidden = false;
filter.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const wanted = groups[button.dataset.show];
  for (const other of filter.querySelectorAll("button")) {
    other.setAttribute("aria-pressed", String(other === button));
  }
  for (const one of document.querySelectorAll("[data-state]")) {
    one.hidden = Boolean(wanted) && !wanted.includes(one.dataset.state);
  }
  const shown = document.querySelectorAll("tr[data-state]:not([hidden])").length;
  filter.querySelector("output").textContent = shown + " steps";
});
