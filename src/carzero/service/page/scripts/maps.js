// The maps that panes show: asked for when one is opened, kept as long as the page is open.

import { ground, ServiceError } from "./api.js";
import { change, currentImage, hasMaps, modelNamed, modelOf, refusalOf, scoreKey, state } from "./store.js";

/** The map of a pane over the image that is looked at: a map, {waiting}, {problem}, {absent}, or null where none is asked for. */
export function mapOf(pane) {
  const image = currentImage();
  if (!image || !pane.finding) return null;
  if (!hasMaps(modelOf(pane))) return { absent: true };
  return state.maps.get(scoreKey(image.id, pane.finding, modelOf(pane))) ?? null;
}

/** Asks for the maps that panes show and that are not at hand. */
export function fetchMaps() {
  const image = currentImage();
  if (!image || image.problem) return;
  const models = new Set(state.panes.filter((pane) => pane.finding).map(modelOf).filter((model) => hasMaps(model) && !refusalOf(image, model)));
  for (const model of models) {
    const labels = [...new Set(state.panes.filter((pane) => pane.finding && modelOf(pane) === model).map((pane) => pane.finding))];
    const missing = labels.filter((label) => !state.maps.has(scoreKey(image.id, label, model)));
    if (missing.length > 0) void ask(image, missing, model);
  }
}

/** Forgets that maps failed, so that they are asked for again. */
export function retryMaps() {
  for (const [key, map] of state.maps) if (map.problem) state.maps.delete(key);
  fetchMaps();
}

async function ask(image, labels, model) {
  const put = (label, value) => state.maps.set(scoreKey(image.id, label, model), value);
  for (const label of labels) put(label, { waiting: true });
  change("maps");
  try {
    const answer = await ground([image], labels, model);
    const [result] = answer.images;
    if (result.error) throw new ServiceError(result.error);
    for (const finding of result.findings) put(finding.label, toMap(finding, modelNamed(model)));
    if (answer.manifest) state.manifests.set(JSON.stringify(answer.manifest), answer.manifest);
    performance.mark("carzero:map");
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    for (const label of labels) put(label, { problem: error });
  }
  change("maps");
}

/**
 * A map as it is drawn: its cells in one row after the other, and the image's point at their upper left corner.
 * A map on its own range reaches the highest colour for a finding that is absent too: it is as strong as the finding is
 * probable, where that is known.
 */
function toMap({ map, ...finding }, model) {
  const [[, , x], [, , y]] = map.affine;
  const strength = model?.map_scale ? 1 : (finding.probability ?? 1);
  return { ...finding, strength, origin: { x, y }, map: { rows: map.rows, columns: map.columns, values: map.values.flat() } };
}
