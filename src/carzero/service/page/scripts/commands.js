// What a reader can do with the image, whichever button, key or gesture says so.

import { look, step as stepImage } from "./images.js";
import { change, currentImage, state } from "./store.js";
import { orderedImages } from "./sorting.js";
import { actual, pan, transformOf, toImage, zoom } from "./viewport.js";
import { dragWindow } from "./voi.js";

let pane = { width: 1, height: 1, unit: 1 };

/** Tells the size of a pane in device pixels, and how many of them a CSS pixel has. */
export function setPaneSize(size) {
  pane = size;
}

export const paneSize = () => pane;

const size = () => currentImage()?.facts ?? null;

export function zoomBy(factor, x = pane.width / pane.unit / 2, y = pane.height / pane.unit / 2) {
  const image = size();
  if (!image) return;
  const about = toImage(transformOf(state.view, image, pane), x * pane.unit, y * pane.unit);
  setView(zoom(state.view, image, pane, factor, about));
}

export function panBy(right, down) {
  const image = size();
  if (image) setView(pan(state.view, image, pane, right * pane.unit, down * pane.unit));
}

export const zoomToFit = () => setView({ fit: true, scale: 1, x: 0, y: 0 });

export function zoomToActual() {
  const image = size();
  if (image) setView(actual(state.view, image, pane));
}

/** Fits the image, or shows its own pixels about a point of the pane where it fits already. */
export function toggleZoom(x, y) {
  const image = size();
  if (!image) return;
  if (!state.view.fit) return zoomToFit();
  const about = toImage(transformOf(state.view, image, pane), x * pane.unit, y * pane.unit);
  setView({ fit: false, scale: 1, x: about.x, y: about.y });
}

function setView(view) {
  state.view = view;
  change("view");
}

/** Changes the window as a drag of so many CSS pixels would. */
export function dragWindowBy(right, down) {
  const image = size();
  if (image && state.window) setWindow(dragWindow(state.window, right, down, image.largest));
}

export function setWindow(window) {
  state.window = { ...window };
  change("window");
}

export function resetWindow() {
  const image = size();
  state.inverted = false;
  if (image) setWindow(image.window);
}

export function invert() {
  state.inverted = !state.inverted;
  change("window");
}

/** The preset that is in use, or null. */
export function presetInUse() {
  const presets = currentImage()?.presets ?? [];
  return presets.find(({ window }) => state.window && window.centre === state.window.centre && window.width === state.window.width) ?? null;
}

export function nextPreset() {
  const presets = currentImage()?.presets ?? [];
  if (presets.length === 0) return;
  setWindow(presets[(presets.indexOf(presetInUse()) + 1) % presets.length].window);
}

export const previousImage = () => stepImage(orderedImages(), -1);

export const nextImage = () => stepImage(orderedImages(), 1);

export function setDragMode(mode) {
  state.dragMode = mode;
  change("view");
}

/** Shows a finding's map in the first pane; the same once more takes it away. */
export function toggleMap(label) {
  const [first] = state.panes;
  first.finding = first.finding === label ? null : label;
  change("panes", "shown");
}

/** Opens an image with a finding's map over it. */
export function openMap(image, label) {
  if (state.current !== image.id) void look(image.id);
  state.panes[0].finding = label;
  change("panes", "shown");
}

export function setPane(index, values) {
  Object.assign(state.panes[index], values);
  change("panes");
}

/** One pane, or two with synchronised views. */
export function toggleCompare() {
  if (state.panes.length === 2) state.panes.length = 1;
  else state.panes.push(secondPane());
  change("panes");
}

/** Two findings side by side. */
export function compareFindings(first, second) {
  state.panes = [{ finding: first, model: state.panes[0].model }, { finding: second, model: null }];
  change("panes", "shown");
}

/** To the right: the same finding by other weights where there are some, else another finding, else the image alone. */
function secondPane() {
  const [first] = state.panes;
  const other = state.models.find((model) => model.name !== (first.model ?? state.model));
  if (other && first.finding) return { finding: first.finding, model: other.name };
  return { finding: state.findings.find(({ label }) => label !== first.finding)?.label ?? null, model: null };
}

export function setOverlay(values) {
  Object.assign(state.overlay, values);
  change("overlay");
}
