// The order of images in the table, which is also the order in which keys step through them.

import { scoreOf, state } from "./store.js";

const byName = new Intl.Collator(undefined, { numeric: true });

/** The images as the table shows them; those without the score by which it is sorted come last either way. */
export function orderedImages() {
  const { by, descending } = state.sort;
  if (by === "order") return state.images;
  const sign = descending ? -1 : 1;
  const images = [...state.images];
  if (by === "name") return images.sort((one, other) => sign * byName.compare(one.name, other.name));
  const label = by.slice("finding:".length);
  const value = (image) => scoreOf(image, label)?.logit ?? null;
  return images.sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (a - b);
  });
}

/** Sorts by a column: a finding highest first, a name from A; once more the other way, then as opened. */
export function sortBy(column) {
  const first = column !== "name";
  const { by, descending } = state.sort;
  if (by !== column) state.sort = { by: column, descending: first };
  else if (descending === first) state.sort = { by: column, descending: !first };
  else state.sort = { by: "order", descending: false };
}

/** The place of an image among all that have a score for a finding, 1 is the highest. */
export function rankOf(image, label) {
  const own = scoreOf(image, label);
  if (!own) return null;
  const all = state.images.map((each) => scoreOf(each, label)).filter(Boolean).map((score) => score.logit);
  return { rank: 1 + all.filter((logit) => logit > own.logit).length, count: all.length, logits: all, own: own.logit };
}
