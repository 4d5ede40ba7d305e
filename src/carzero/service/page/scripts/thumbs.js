// Small pictures of the images whose rows are in view: fetched one after the other once all scores have come.

import { load } from "./images.js";
import { ServiceError } from "./api.js";
import { isScoring } from "./scoring.js";
import { state, subscribe } from "./store.js";

const inView = new Set(); // ids of images
let busy = false;

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const id = Number(target.dataset.image);
    if (isIntersecting) inView.add(id);
    else inView.delete(id);
  }
  void work();
});

export function startThumbs() {
  subscribe(["scores", "images", "current"], () => void work());
}

/** Has the picture of a row's image fetched when the row comes into view. */
export const watchRow = (row) => observer.observe(row);

async function work() {
  const isNext = ({ id, status, thumb }) => inView.has(id) && status === "waiting" && !thumb;
  const image = state.images.find(isNext);
  const looking = state.images.some(({ status }) => status === "loading");
  if (busy || !image || looking || isScoring()) return;
  busy = true;
  try {
    await load(image);
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error; // the row says why
  } finally {
    busy = false;
  }
  void work();
}
