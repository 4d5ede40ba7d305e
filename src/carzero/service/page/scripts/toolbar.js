// The buttons above the image.

import * as commands from "./commands.js";
import { byId, element, fillOptions, setText } from "./dom.js";
import { say } from "./live.js";
import { orderedImages } from "./sorting.js";
import { currentImage, state, subscribe } from "./store.js";
import { number, text } from "./texts.js";
import { toFileWindow } from "./voi.js";

const BUTTONS = {
  reset: commands.resetWindow,
  invert: commands.invert,
  "zoom-out": () => commands.zoomBy(0.8),
  "zoom-in": () => commands.zoomBy(1.25),
  "zoom-fit": commands.zoomToFit,
  "zoom-actual": commands.zoomToActual,
  previous: commands.previousImage,
  next: commands.nextImage,
  compare: commands.toggleCompare,
};

export function startToolbar() {
  for (const [id, act] of Object.entries(BUTTONS)) byId(id).addEventListener("click", () => act());
  byId("preset").addEventListener("change", choosePreset);
  for (const button of modes()) {
    button.addEventListener("click", () => commands.setDragMode(button.dataset.mode));
    button.addEventListener("keydown", switchMode);
  }
  byId("toolbar").insertBefore(buildOverlayGroup(), byId("stepper"));
  subscribe(["current", "images", "window", "view", "panes", "scores", "sort", "overlay", "maps", "language"], show);
  subscribe(["window"], sayWindow);
  show();
}

const modes = () => [...byId("drag-mode").querySelectorAll("button")];

function switchMode(event) {
  if (!event.key.startsWith("Arrow")) return;
  event.preventDefault();
  const other = modes().find((button) => button !== event.currentTarget);
  commands.setDragMode(other.dataset.mode);
  other.focus();
}

function choosePreset(event) {
  const preset = currentImage()?.presets.find(({ id }) => id === event.target.value);
  if (preset) commands.setWindow(preset.window);
}

/** Opacity of a map and how its cells are drawn; there only while a map is shown. */
function buildOverlayGroup() {
  const opacity = element("input", { type: "range", id: "opacity", min: "0", max: "1", step: "0.05", data: { label: "map.opacity" }, on: { input: (event) => commands.setOverlay({ opacity: Number(event.target.value) }) } });
  const smooth = element("button", { type: "button", id: "smooth", "aria-pressed": "false", data: { text: "map.smooth", label: "map.smooth.about" }, on: { click: () => commands.setOverlay({ smooth: !state.overlay.smooth }) } });
  return element("div", { class: "group", id: "overlay-group" }, opacity, smooth);
}

function show() {
  const image = currentImage();
  const usable = Boolean(image?.facts) && !image.problem;
  const comparing = state.panes.length > 1;
  for (const control of byId("toolbar").querySelectorAll("button, select, input")) control.disabled = !usable;
  for (const button of modes()) {
    const chosen = button.dataset.mode === state.dragMode;
    button.setAttribute("aria-checked", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
  }
  showPresets(image);
  byId("invert").setAttribute("aria-pressed", String(state.inverted));
  byId("compare").setAttribute("aria-pressed", String(comparing));
  byId("zoom-fit").setAttribute("aria-pressed", String(state.view.fit));
  byId("overlay-group").hidden = !state.panes.some((pane) => pane.finding);
  byId("opacity").value = state.overlay.opacity;
  byId("smooth").setAttribute("aria-pressed", String(state.overlay.smooth));
  showPosition();
}

function showPresets(image) {
  const names = (image?.presets ?? []).map(({ id, name }) => [id, name ?? text(`window.${id}`)]);
  const used = commands.presetInUse();
  fillOptions(byId("preset"), used || !image ? names : [["", text("window.own")], ...names], used?.id ?? "");
}

function showPosition() {
  const order = orderedImages();
  const index = order.findIndex((image) => image.id === state.current);
  byId("stepper").hidden = order.length < 2;
  setText(byId("position"), order.length ? `${index + 1}/${order.length}` : "");
  byId("previous").disabled = index <= 0;
  byId("next").disabled = index < 0 || index === order.length - 1;
}

function sayWindow() {
  const facts = currentImage()?.facts;
  if (!facts || !state.window) return;
  const { centre, width } = toFileWindow(state.window, facts);
  say(text("status.levels", { width: number(width, 0), centre: number(centre, 0) }));
}
