// What the page knows, in one place. Who changes it says what has changed; who shows it is told once afterwards.

/**
 * @typedef {Object} Finding
 * @property {string} label what was typed
 * @property {string} prompt the sentence that asks for it; "" until the service has said it
 * @property {string|null} negative the sentence that it is scored against, where the weights want it so
 * @property {Array<{code: string, severity: string, message: string}>} remarks of the linter
 * @property {boolean|null} unfamiliar whether the weights were trained on nothing that speaks of it; null: not known
 *
 * @typedef {Object} Film one image that was opened
 * @property {number} id
 * @property {string} name with its folder, where it came from one
 * @property {File} file
 * @property {"waiting"|"loading"|"shown"|"failed"} status of its pixels
 * @property {Object|null} facts what the service says of it
 * @property {Object|null} problem why its pixels cannot be shown
 * @property {Map<string, Object>} refusals why it has no scores, by the weights that were to give them
 * @property {boolean} force whether it is scored although it may not be a chest radiograph
 * @property {string[]} remarks doubts about it
 */

export const state = {
  models: [],
  limits: {},
  model: "",
  images: [],
  findings: [],
  current: null, // the id of the image that is looked at
  scores: new Map(), // scoreKey -> {logit, probability, unfamiliar, prompt}, or {waiting: true}, or {problem}
  maps: new Map(), // scoreKey -> a map of the service, or {waiting: true}, or {problem}
  manifests: new Map(), // text of a manifest -> the manifest
  sort: { by: "order", descending: false },
  view: { fit: true, scale: 1, x: 0, y: 0 },
  window: null, // {centre, width} of the image that is looked at
  inverted: false,
  dragMode: "window",
  panes: [{ finding: null, model: null }], // what lies over the image in each pane; model null: the chosen one
  overlay: { opacity: 0.55, smooth: false },
};

const listeners = [];
let changed = new Set();

/** Calls `listener` after something of `topics` has changed. */
export function subscribe(topics, listener) {
  listeners.push({ topics: new Set(topics), listener });
}

/** Says that something of these topics has changed; listeners are called once, after the code that runs now. */
export function change(...topics) {
  if (changed.size === 0) queueMicrotask(tell);
  for (const topic of topics) changed.add(topic);
}

function tell() {
  const topics = changed;
  changed = new Set();
  for (const each of listeners) {
    if ([...each.topics].some((topic) => topics.has(topic))) each.listener(topics);
  }
}

/** The key of one image, finding and model in `scores` and `maps`. */
export const scoreKey = (image, label, model) => JSON.stringify([image, model, label]);

/** The score of an image for a finding by the chosen model, where there is one. */
export function scoreOf(image, label, model = state.model) {
  const found = state.scores.get(scoreKey(image.id, label, model));
  return found && "logit" in found ? found : null;
}

export const currentImage = () => state.images.find((image) => image.id === state.current) ?? null;

export const findFinding = (label) => state.findings.find((finding) => finding.label === label) ?? null;

/** Why an image has no scores by the chosen model, or by another; null where nothing was refused. */
export const refusalOf = (image, model = state.model) => image.refusals.get(model) ?? null;

export const modelNamed = (name) => state.models.find((model) => model.name === name) ?? null;

/** How weights are called: by their title, and where several share it by their name. */
export function titleOf(model) {
  const shared = state.models.filter(({ title }) => title === model.title).length > 1;
  return shared ? model.name : model.title || model.name;
}

/** Whether weights say where they look; those that only score have no maps. */
export const hasMaps = (model) => Boolean(modelNamed(model)?.map_kind);

/** The model that a pane asks: its own, or the chosen one. */
export const modelOf = (pane) => pane.model ?? state.model;
