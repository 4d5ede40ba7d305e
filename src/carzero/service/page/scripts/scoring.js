// Which scores are missing, and asking for them: the image that is looked at first, the others some at a time.

import { predict, ServiceError } from "./api.js";
import { join, reload } from "./images.js";
import { change, currentImage, modelOf, refusalOf, scoreKey, state } from "./store.js";

const AT_ONCE = 2; // requests; the service joins them to its own batches
const IMAGES = 8; // in a request
const BYTES = 48 * 2 ** 20;

let running = 0;

/** Asks for every score that is missing: of the chosen model, and of those that panes ask. */
export function scoreMissing() {
  while (running < AT_ONCE) {
    const next = findNext();
    if (!next) return;
    running += 1;
    void ask(next).finally(() => {
      running -= 1;
      change("scores");
      scoreMissing();
    });
  }
}

/** Whether scores are asked for just now. */
export const isScoring = () => running > 0;

/** Forgets that scores failed, so that they are asked for again. */
export function retry() {
  state.images.forEach(forget);
  change("scores", "images");
  scoreMissing();
}

/** Shows and scores an image that was refused as no chest radiograph; the service's doubt comes with the scores. */
export function scoreAnyway(image) {
  image.force = true;
  forget(image);
  change("scores", "images");
  if (image.problem) reload(image);
  scoreMissing();
}

/** Whether the service would take an image if it were told to. */
export const canBeForced = (image, problem) => problem?.kind === "unsuitable-image" && !image.force;

function forget(image) {
  image.refusals.clear();
  for (const { name } of state.models) {
    for (const { label } of state.findings) {
      const key = scoreKey(image.id, label, name);
      if (state.scores.get(key)?.problem) state.scores.delete(key);
    }
  }
}

/** Asks once more where a request was refused for its words, once they are other words. */
export function retryWords() {
  for (const image of state.images) {
    if ([...image.refusals.values()].some((error) => error.ofRequest)) forget(image);
  }
}

/** How many images have all scores of the chosen model, have failed, and are still to come. */
export function countScored() {
  const counts = { done: 0, failed: 0, total: state.images.length };
  for (const image of state.images) {
    if (refusalOf(image)) counts.failed += 1;
    else if (state.findings.every(({ label }) => "logit" in (state.scores.get(scoreKey(image.id, label, state.model)) ?? {}))) counts.done += 1;
  }
  return counts;
}

function findNext() {
  const current = currentImage();
  const asked = [state.model, ...state.panes.map(modelOf)].filter(Boolean);
  for (const model of new Set(asked)) {
    if (current && model) {
      const labels = missingOf(current, model);
      if (labels.length > 0) return { model, labels, images: [current] };
    }
  }
  for (const image of state.images) {
    const labels = missingOf(image, state.model);
    if (labels.length > 0) return { model: state.model, labels, images: fill(labels, image.force) };
  }
  return null;
}

/** Images that lack just these scores, as many as one request takes. */
function fill(labels, force) {
  const wanted = labels.join("\n");
  const most = Math.min(IMAGES, state.limits.images ?? IMAGES);
  const most_bytes = Math.min(BYTES, 0.9 * (state.limits.body_bytes ?? BYTES));
  const images = [];
  let bytes = 0;
  for (const image of state.images) {
    if (images.length === most) break;
    if (missingOf(image, state.model).join("\n") !== wanted || image.force !== force) continue;
    if (images.length > 0 && bytes + image.file.size > most_bytes) break;
    images.push(image);
    bytes += image.file.size;
  }
  return images;
}

/** Findings that an image has not been asked for; those of an image that was refused are not. */
function missingOf(image, model) {
  if (!model || refusalOf(image, model)) return [];
  return state.findings.map(({ label }) => label).filter((label) => !state.scores.has(scoreKey(image.id, label, model)));
}

async function ask({ model, labels, images }) {
  mark(images, labels, model, { waiting: true });
  change("scores");
  try {
    const answer = await predict(images, labels, model);
    answer.images.forEach((result, index) => take(images[index], result, model, labels));
    state.manifests.set(JSON.stringify(answer.manifest), answer.manifest);
    performance.mark("carzero:scores");
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    error.ofRequest = true;
    mark(images, labels, model, { problem: error });
    for (const image of images) image.refusals.set(model, error);
  }
  change("scores", "images");
}

function mark(images, labels, model, value) {
  for (const image of images) for (const label of labels) state.scores.set(scoreKey(image.id, label, model), value);
}

function take(image, result, model, labels) {
  if (result.error) {
    const problem = new ServiceError(result.error);
    image.refusals.set(model, problem);
    mark([image], labels, model, { problem });
    return;
  }
  image.remarks = join(image.remarks, result.remarks);
  for (const score of result.scores) state.scores.set(scoreKey(image.id, score.label, model), score);
}
