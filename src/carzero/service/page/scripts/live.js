// What is said to a screen reader: one polite line, the last of what happens in quick succession.

import { byId } from "./dom.js";

const QUIET_MS = 350;
let timer = 0;

/** Says a line once nothing else has been said for a moment. */
export function say(line) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    byId("live").textContent = line;
  }, QUIET_MS);
}
