"use strict";
// Follows a run: the log grows, the state is replaced. Without it the page reloads itself every five seconds.
const log = document.getElementById("log");
const state = document.getElementById("state");
const said = document.getElementById("said");
let ended = false;
const LONGEST = 2_000_000; // characters: the whole log is a download
if (log && log.dataset.live) {
  const source = new EventSource(log.dataset.live);
  log.scrollTop = log.scrollHeight;
  source.addEventListener("log", (event) => {
    const following = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(JSON.parse(event.data));
    while (log.textContent.length > LONGEST && log.childNodes.length > 1) log.firstChild.remove();
    if (following) log.scrollTop = log.scrollHeight;
  });
  source.addEventListener("state", (event) => {
    const open = [...state.querySelectorAll("details")].map((each) => each.open);
    state.innerHTML = JSON.parse(event.data); // rendered and escaped by the server
    const now = state.querySelector(".state").textContent;
    if (said.textContent !== now) said.textContent = now; // for screen readers: one word, not the whole part
    state.querySelectorAll("details").forEach((each, index) => { each.open = Boolean(open[index]); });
  });
  source.addEventListener("end", () => { source.close(); ended = true; });
}
// The screen of the build VM: a picture every two seconds, while somebody looks.
const SCREEN_MS = 2000;
const screenBox = document.getElementById("screen");
const shot = document.getElementById("shot");
const screenSaid = document.getElementById("screen-said");
let nextLook = 0;
function look() {
  clearTimeout(nextLook);
  if (screenBox.open && !document.hidden) shot.src = `${shot.dataset.from}?${Date.now()}`;
}
function looked(text) {
  shot.hidden = text !== "";
  if (screenSaid.textContent !== text) screenSaid.textContent = text;
  clearTimeout(nextLook);
  if (!ended) nextLook = setTimeout(look, SCREEN_MS);
}
if (screenBox) {
  screenBox.addEventListener("toggle", look);
  document.addEventListener("visibilitychange", look);
  shot.addEventListener("load", () => looked(""));
  shot.addEventListener("error", () => looked(ended ? "It has ended." : "There is nothing to see now."));
}
