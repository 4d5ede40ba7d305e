// The images that are open: added, chosen, removed; their grey levels fetched when they are looked at and kept for a while.

import { fetchPixels, ServiceError } from "./api.js";
import { Pyramid } from "./pyramid.js";
import { change, currentImage, state } from "./store.js";
import { countValues, fillTable, listPresets } from "./voi.js";

export const MOST_IMAGES = 300;
const KEPT_BYTES = 384 * 2 ** 20; // of grey levels
const THUMB_PX = 48;

const kept = new Map(); // image id -> Pyramid, the least recently looked at first
const loading = new Map(); // image id -> promise
let next = 1;

/** How many of these files are open already. */
const isOpen = ({ file, name }) =>
  state.images.some((image) => image.name === name && image.file.size === file.size && image.file.lastModified === file.lastModified);

/**
 * Opens files behind those that are open, and looks at the first where none was looked at.
 * @returns {{added: number, known: number}} known: those that were open before
 */
export function openImages(files) {
  const fresh = files.filter((file) => !isOpen(file));
  for (const { file, name } of fresh) {
    state.images.push({ id: next, file, name, status: "waiting", facts: null, presets: [], problem: null, refusals: new Map(), force: false, remarks: [], thumb: null });
    next += 1;
  }
  if (fresh.length > 0) {
    const current = currentImage();
    if (!current || current.status === "failed") void lookAtFirst(state.images.slice(-fresh.length));
  }
  change("images");
  return { added: fresh.length, known: files.length - fresh.length };
}

export function removeImage(image) {
  const index = state.images.indexOf(image);
  state.images.splice(index, 1);
  kept.delete(image.id);
  if (state.current === image.id) void look((state.images[index] ?? state.images.at(-1))?.id ?? null);
  change("images");
}

/** Looks at an image: its own window, the whole of it. Resolves once it is shown or has failed. */
export function look(id) {
  state.current = id;
  state.view = { fit: true, scale: 1, x: 0, y: 0 };
  state.window = null;
  state.inverted = false;
  change("current", "view", "window");
  const image = currentImage();
  return image ? show(image) : Promise.resolve();
}

/** The image `step` places further in the order of the table. */
export function step(order, by) {
  const index = order.findIndex((image) => image.id === state.current);
  const found = order[index + by];
  if (found) void look(found.id);
  return found ?? null;
}

/** The grey levels of an image, where they are at hand. */
export function pyramidOf(image) {
  const found = kept.get(image.id);
  if (found) {
    kept.delete(image.id);
    kept.set(image.id, found);
  }
  return found ?? null;
}

/** Looks at the first of these images that can be shown, unless the reader has chosen another one meanwhile. */
async function lookAtFirst(images) {
  for (const image of images) {
    await look(image.id);
    if (state.current !== image.id || image.status !== "failed") return;
  }
}

/** Tries once more to show an image. */
export function reload(image) {
  image.problem = null;
  void show(image);
}

async function show(image) {
  try {
    await load(image);
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
  }
  if (state.current !== image.id) return;
  if (image.facts && !state.window) state.window = { ...image.facts.window };
  change("current", "window", "images");
}

/** Fetches the grey levels of an image, unless they are at hand. */
export async function load(image) {
  if (kept.has(image.id)) return;
  if (!loading.has(image.id)) loading.set(image.id, fetchAndKeep(image).finally(() => loading.delete(image.id)));
  await loading.get(image.id);
}

async function fetchAndKeep(image) {
  image.status = "loading";
  image.problem = null;
  change("images");
  try {
    const { values, facts } = await fetchPixels(image);
    const pyramid = new Pyramid(values, facts.columns, facts.rows);
    keep(image, pyramid);
    Object.assign(image, { facts, status: "shown", remarks: join(image.remarks, facts.remarks) });
    image.presets = listPresets(facts, countValues(values));
    image.thumb ??= drawThumb(pyramid, facts);
  } catch (error) {
    Object.assign(image, { status: "failed", problem: error });
    throw error;
  } finally {
    change("images");
  }
}

/** Adds remarks that are not there yet. */
export const join = (remarks, more = []) => [...new Set([...remarks, ...more])];

function keep(image, pyramid) {
  kept.set(image.id, pyramid);
  let bytes = [...kept.values()].reduce((sum, each) => sum + each.bytes, 0);
  for (const [id, each] of kept) {
    if (bytes <= KEPT_BYTES || id === image.id || id === state.current) continue;
    kept.delete(id);
    bytes -= each.bytes;
  }
}

/** A small picture of an image under its own window. */
function drawThumb(pyramid, facts) {
  const depth = Math.max(0, Math.ceil(Math.log2(Math.max(facts.columns, facts.rows) / THUMB_PX)) - 1);
  const { values, columns, rows } = pyramid.level(depth);
  const table = fillTable(facts.largest, facts.window, false);
  const data = new ImageData(columns, rows);
  const colours = new Uint32Array(data.data.buffer);
  for (let index = 0; index < colours.length; index += 1) colours[index] = table[values[index]];
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: columns, height: rows, className: "thumb" });
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
}
