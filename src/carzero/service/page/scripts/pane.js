// One pane: an image, over it perhaps a map, above it what is shown, below it what the colours mean.

import { element, fillOptions, icon, iconButton, setAttribute, setText } from "./dom.js";
import * as commands from "./commands.js";
import { listen } from "./gestures.js";
import { drawMap } from "./heat.js";
import { pyramidOf, reload } from "./images.js";
import { Legend } from "./legend.js";
import { mapOf, retryMaps } from "./maps.js";
import { canBeForced, retry, scoreAnyway } from "./scoring.js";
import { currentImage, modelNamed, modelOf, refusalOf, scoreOf, state, titleOf } from "./store.js";
import { text } from "./texts.js";
import { Tone } from "./tone.js";
import { formatScore } from "./wording.js";
import { transformOf } from "./viewport.js";

export class Pane {
  /**
   * @param {number} index of the pane
   * @param {{point: function, leave: function}} pointer is told the point of the image under it
   */
  constructor(index, pointer) {
    this.index = index;
    this.tone = new Tone();
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.message = element("div", { class: "stage-message", hidden: true });
    this.stage = element(
      "div",
      { class: "stage", tabindex: "0", role: "application", id: `stage-${index}`, "aria-roledescription": text("viewer.role") },
      this.canvas,
    );
    const frame = element("div", { class: "stage-frame" }, this.stage, this.message);
    this.finding = element("select", { id: `pane-finding-${index}`, "aria-label": text("pane.finding"), on: { change: () => this.#choose() } });
    this.model = element("select", { id: `pane-model-${index}`, "aria-label": text("weights.label"), on: { change: () => this.#choose() } });
    this.score = element("span", { class: "pane-score" });
    this.close = iconButton("close", text("map.close"), () => commands.setPane(index, { finding: null }));
    this.head = element("div", { class: "pane-head" }, icon("map"), this.finding, this.model, this.score, this.close);
    this.legend = new Legend();
    this.root = element("div", { class: "pane", role: "group" }, this.head, frame, this.legend.root);
    listen(this.stage, this.#actions(pointer));
  }

  #actions(pointer) {
    return {
      mode: () => state.dragMode,
      drag: (kind, right, down) => (kind === "pan" ? commands.panBy(right, down) : commands.dragWindowBy(right, down)),
      zoom: commands.zoomBy,
      double: commands.toggleZoom,
      point: (x, y) => pointer.point(this, x, y),
      leave: () => pointer.leave(),
    };
  }

  #choose() {
    commands.setPane(this.index, { finding: this.finding.value || null, model: this.model.value || null });
  }

  /** Size of the canvas: that of the stage, in device pixels. */
  measure() {
    const unit = window.devicePixelRatio || 1;
    const box = this.stage.getBoundingClientRect();
    return { width: Math.max(1, Math.round(box.width * unit)), height: Math.max(1, Math.round(box.height * unit)), unit };
  }

  /** Writes what is shown above and below the image. */
  describe() {
    const image = currentImage();
    const pane = state.panes[this.index];
    const map = mapOf(pane);
    this.head.hidden = !image || Boolean(image.problem) || (state.findings.length === 0 && state.panes.length === 1);
    fillOptions(this.finding, [["", text("pane.plain")], ...state.findings.map(({ label }) => [label, label])], pane.finding ?? "");
    fillOptions(this.model, state.models.map((model) => [model.name, titleOf(model)]), modelOf(pane));
    this.model.hidden = state.models.length < 2 || state.panes.length < 2;
    this.close.hidden = !pane.finding;
    const score = image && pane.finding ? scoreOf(image, pane.finding, modelOf(pane)) : null;
    setText(this.score, score ? formatScore(score, modelNamed(modelOf(pane))).long : "");
    this.legend.update(map, modelNamed(modelOf(pane)), state.overlay);
    this.#say(image, map);
    setAttribute(this.root, "aria-label", pane.finding ? text("pane.with", { finding: pane.finding }) : text("pane.plain"));
    setAttribute(this.stage, "aria-label", describeStage(image, pane, map));
  }

  #say(image, map) {
    const refusal = image && state.panes[this.index].finding ? refusalOf(image, modelOf(state.panes[this.index])) : null;
    const problem = image?.problem ?? refusal ?? map?.problem ?? null;
    const waiting = image && !image.problem && !pyramidOf(image) ? text("image.loading", { name: image.name }) : map?.waiting ? text("map.loading") : "";
    const absent = !waiting && map?.absent ? text("map.absent") : "";
    this.message.hidden = !problem && !waiting && !absent;
    this.message.className = `stage-message ${problem ? "failed" : waiting ? "waiting" : "absent"}`;
    this.message.setAttribute("role", problem ? "alert" : "none");
    if (!problem) return void this.message.replaceChildren(waiting || absent);
    const title = image.problem ? text("image.failed", { name: image.name }) : refusal ? text("image.unscored") : text("map.failed");
    const again = element("button", { type: "button", text: text("retry"), on: { click: () => (image.problem ? reload(image) : refusal ? retry() : retryMaps()) } });
    const anyway = canBeForced(image, problem) ? element("button", { type: "button", text: text("image.anyway"), on: { click: () => scoreAnyway(image) } }) : null;
    this.message.replaceChildren(element("strong", { text: title }), element("span", { lang: "en", text: problem.message }), element("span", { class: "stage-actions" }, anyway, again));
  }

  /** Draws the image under the window's table, and the map. */
  draw(table) {
    const size = this.measure();
    if (this.canvas.width !== size.width) this.canvas.width = size.width;
    if (this.canvas.height !== size.height) this.canvas.height = size.height;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, size.width, size.height);
    const image = currentImage();
    const pyramid = image && pyramidOf(image);
    if (!pyramid || !image.facts) return false;
    const transform = transformOf(state.view, image.facts, size);
    this.tone.draw(context, pyramid, table, transform, size);
    const map = mapOf(state.panes[this.index]);
    if (map?.map) drawMap(context, map, image.facts, transform, state.overlay, size.unit);
    return true;
  }
}

function describeStage(image, pane, map) {
  if (!image) return text("viewer.empty");
  if (image.problem) return text("image.failed", { name: image.name });
  if (!image.facts) return text("image.loading", { name: image.name });
  const size = text("image.size", { name: image.name, columns: image.facts.columns, rows: image.facts.rows });
  if (!map?.map) return `${size} ${text("viewer.unmarked")}`;
  return `${size} ${text("map.over", { finding: pane.finding })}`;
}
