// The panes as one picture at the image's own size, with what must be known to read it below.

import { drawMap } from "./heat.js";
import { pyramidOf } from "./images.js";
import { describeColours, describePlaces } from "./legend.js";
import { mapOf } from "./maps.js";
import { currentImage, modelNamed, modelOf, scoreOf, state } from "./store.js";
import { text } from "./texts.js";
import { Tone } from "./tone.js";
import { fillTable } from "./voi.js";
import { formatScale, formatScore } from "./wording.js";

const LONGEST_PX = 4096;
const [GROUND, INK, FAINT] = ["rgb(16 18 22)", "rgb(236 239 244)", "rgb(160 168 180)"];

/** Draws what the panes show, the whole image each, as a PNG file. */
export async function drawPicture() {
  const image = currentImage();
  const pyramid = pyramidOf(image);
  const { columns, rows, largest } = image.facts;
  const scale = Math.min(1, LONGEST_PX / Math.max(columns, rows));
  const [width, height] = [Math.round(columns * scale), Math.round(rows * scale)];
  const unit = Math.max(1, width / 700);
  const captions = state.panes.map(captionOf);
  const lines = Math.max(...captions.map((caption) => caption.length));
  const line = Math.round(22 * unit);
  const gap = Math.round(12 * unit);
  const canvas = document.createElement("canvas");
  canvas.width = width * state.panes.length + gap * (state.panes.length - 1);
  canvas.height = height + line * lines + 2 * gap;
  const context = canvas.getContext("2d");
  context.fillStyle = GROUND;
  context.fillRect(0, 0, canvas.width, canvas.height);
  const table = fillTable(largest, state.window, state.inverted);
  state.panes.forEach((pane, index) => {
    const transform = { scale, left: index * (width + gap), top: 0 };
    drawPane(context, pane, pyramid, table, transform, { width, height }, unit, image.facts);
    write(context, captions[index], transform.left + gap, height + gap, width - 2 * gap, line);
  });
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function drawPane(context, pane, pyramid, table, transform, { width, height }, unit, facts) {
  context.save();
  context.beginPath();
  context.rect(transform.left, 0, width, height);
  context.clip();
  new Tone().draw(context, pyramid, table, transform, { width: transform.left + width, height });
  const map = mapOf(pane);
  if (map?.map) drawMap(context, map, facts, transform, state.overlay, unit);
  context.restore();
}

/** What stands below a pane: finding, image, what its colours mean, where it comes from, and what it is not. */
function captionOf(pane) {
  const model = modelNamed(modelOf(pane));
  const name = currentImage().name.split("/").at(-1); // folders may name a patient
  const map = mapOf(pane);
  const weights = text("picture.weights", { weights: model.name, hash: model.weights_sha256.slice(0, 12) });
  const lines = [text("notice")];
  if (!pane.finding) return [text("pane.plain"), name, ...lines];
  const score = scoreOf(currentImage(), pane.finding, modelOf(pane));
  const title = score ? `${pane.finding}: ${formatScore(score, model).long}` : pane.finding;
  if (!map?.map) return [title, name, weights, ...lines];
  const [low, high] = formatScale(map.scale);
  const range = text("picture.range", { low, high, what: describeColours(map, model) });
  return [title, name, range, describePlaces(map), weights, ...(model.demo ? [text("map.demo")] : []), ...lines];
}

function write(context, lines, left, top, width, height) {
  context.textBaseline = "top";
  lines.forEach((line, index) => {
    context.font = `${index === 0 ? 600 : 400} ${Math.round(height * 0.68)}px system-ui, sans-serif`;
    context.fillStyle = index === 0 ? INK : FAINT;
    context.fillText(line, left, top + index * height, width);
  });
}
