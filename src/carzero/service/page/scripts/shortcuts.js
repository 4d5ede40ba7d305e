// Keys: the list that the help shows is the list that is obeyed.

import { focusAsk } from "./ask.js";
import * as commands from "./commands.js";
import { byId } from "./dom.js";
import { chooseFiles } from "./drop.js";
import { savePicture } from "./exports.js";
import { preferences } from "./preferences.js";
import { state } from "./store.js";
import { focusStage } from "./viewer.js";

const STEP_PX = 16; // of an arrow key
const arrow = (act) => (event) => {
  const by = { ArrowLeft: [-STEP_PX, 0], ArrowRight: [STEP_PX, 0], ArrowUp: [0, -STEP_PX], ArrowDown: [0, STEP_PX] }[event.key];
  act(...by);
};
const ARROWS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];

/** `keys` as events name them, `shown` as keyboards do; `stage`: only while the image has the focus. */
export const SHORTCUTS = [
  { keys: ["o"], shown: ["O"], about: "keys.open", act: chooseFiles },
  { keys: ["/", "f"], shown: ["F", "/"], about: "keys.ask", act: focusAsk },
  { keys: ["v"], shown: ["V"], about: "keys.stage", act: focusStage },
  { keys: ARROWS, shown: ["\u2190 \u2192 \u2191 \u2193"], about: "keys.window", stage: true, act: arrow(commands.dragWindowBy) },
  { keys: ARROWS, shift: true, shown: ["\u21e7 \u2190 \u2192 \u2191 \u2193"], about: "keys.pan", stage: true, act: arrow((right, down) => commands.panBy(-2 * right, -2 * down)) },
  { keys: ["w"], shown: ["W"], about: "keys.preset", act: commands.nextPreset },
  { keys: ["r"], shown: ["R"], about: "keys.reset", act: commands.resetWindow },
  { keys: ["i"], shown: ["I"], about: "keys.invert", act: commands.invert },
  { keys: ["+", "="], shown: ["+"], about: "keys.in", act: () => commands.zoomBy(1.25) },
  { keys: ["-"], shown: ["\u2212"], about: "keys.out", act: () => commands.zoomBy(0.8) },
  { keys: ["0"], shown: ["0"], about: "keys.fit", act: commands.zoomToFit },
  { keys: ["1"], shown: ["1"], about: "keys.actual", act: commands.zoomToActual },
  { keys: ["n", "PageDown"], shown: ["N", "Page \u2193"], about: "keys.next", act: commands.nextImage },
  { keys: ["p", "PageUp"], shown: ["P", "Page \u2191"], about: "keys.previous", act: commands.previousImage },
  { keys: ["m"], shown: ["M"], about: "keys.map", act: nextMap },
  { keys: ["c"], shown: ["C"], about: "keys.compare", act: commands.toggleCompare },
  { keys: ["s"], shown: ["S"], about: "keys.picture", act: () => void savePicture() },
  { keys: ["?", "h"], shown: ["?"], about: "keys.help", act: () => byId("open-help").click() },
];

export function startShortcuts() {
  document.addEventListener("keydown", onKey);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (document.querySelector("dialog[open]") || event.target.closest("input:not([type=range]), select, textarea")) return;
  if (!preferences.singleKeys && event.key.length === 1) return;
  const onStage = Boolean(event.target.closest(".stage"));
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const found = SHORTCUTS.find((each) => each.keys.includes(key) && (!each.stage || (onStage && event.shiftKey === Boolean(each.shift))));
  if (!found) return;
  event.preventDefault();
  found.act(event);
}

/** The next finding's map, and after the last the image alone. */
function nextMap() {
  const labels = [...state.findings.map(({ label }) => label), null];
  const index = labels.indexOf(state.panes[0].finding);
  commands.setPane(0, { finding: labels[(index + 1) % labels.length] });
}
