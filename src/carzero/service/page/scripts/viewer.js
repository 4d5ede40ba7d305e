// The panes side by side, drawn once a frame when something has changed; the value under the pointer.

import { byId, element } from "./dom.js";
import { paneSize, setPaneSize } from "./commands.js";
import { pyramidOf } from "./images.js";
import { fetchMaps } from "./maps.js";
import { Pane } from "./pane.js";
import { showPointer } from "./status.js";
import { currentImage, state, subscribe } from "./store.js";
import { transformOf, toImage } from "./viewport.js";
import { fillTable } from "./voi.js";

const panes = [];
const table = new Uint32Array(65536);
let tableOf = "";
let asked = false;
let seen = null; // the image whose first drawing has been marked

export function startViewer() {
  const observer = new ResizeObserver(draw);
  observer.observe(byId("panes"));
  subscribe(["panes", "current", "findings", "images", "maps", "scores", "overlay", "models"], arrange);
  subscribe(["view", "window", "overlay", "maps", "current", "panes", "images"], draw);
  subscribe(["panes", "current", "images"], fetchMaps);
  subscribe(["shown"], () => byId("viewer").scrollIntoView({ block: "nearest" })); // on a narrow screen it may be out of view
  subscribe(["language"], () => {
    while (panes.length > 0) panes.pop().root.remove();
    arrange();
  });
  arrange();
}

/** Makes as many panes as are asked for, and has each say what it shows. */
function arrange() {
  const host = byId("panes");
  while (panes.length < state.panes.length) {
    panes.push(new Pane(panes.length, { point: pointAt, leave: () => showPointer(null) }));
    host.append(panes.at(-1).root);
  }
  while (panes.length > state.panes.length) panes.pop().root.remove();
  host.classList.toggle("pair", panes.length > 1);
  byId("viewer").classList.toggle("empty", state.images.length === 0);
  for (const pane of panes) pane.describe();
  draw();
}

function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    if (panes.length === 0) return;
    setPaneSize(panes[0].measure());
    prepareTable();
    const drawn = panes.map((pane) => pane.draw(table));
    if (drawn[0] && seen !== state.current) {
      seen = state.current;
      performance.mark("carzero:image");
    }
  });
}

function prepareTable() {
  const image = currentImage();
  if (!image?.facts) return;
  const window = state.window ?? image.facts.window;
  const wanted = JSON.stringify([image.facts.largest, window, state.inverted]);
  if (wanted !== tableOf) fillTable(image.facts.largest, window, state.inverted, table);
  tableOf = wanted;
}

function pointAt(pane, x, y) {
  const image = currentImage();
  const pyramid = image && pyramidOf(image);
  if (!pyramid) return showPointer(null);
  const { unit } = paneSize();
  const point = toImage(transformOf(state.view, image.facts, pane.measure()), x * unit, y * unit);
  const value = pyramid.valueAt(point.x, point.y);
  showPointer(value === null ? null : { x: Math.floor(point.x), y: Math.floor(point.y), value });
}

/** The stage that keys act on. */
export const focusStage = () => panes[0]?.stage.focus();

/** A list of what each pane shows, for a picture of it. */
export const shownPanes = () => state.panes.map((pane, index) => ({ pane, root: panes[index]?.root ?? element("div") }));
