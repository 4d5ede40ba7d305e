// Numbers of the service in words: scores, places, sizes.

import { number, percent, text } from "./texts.js";

/** A score of weights, short for a table and long for a sentence; as a probability only where the service gives one. */
export function formatScore({ logit, probability }, model) {
  const plain = number(logit, 2);
  const differs = model?.style.score_kind === "logit_difference";
  const long = differs ? text("score.difference", { logit: plain }) : text("score.logit", { logit: plain });
  if (probability === null || probability === undefined) return { short: plain, long };
  const share = percent(probability);
  return { short: share, second: plain, long: text("score.both", { probability: share, score: long }) };
}

const whole = (value) => number(Math.round(value));

export const formatPoint = ({ x, y }) => text("map.point", { x: whole(x), y: whole(y) });

export const formatBox = ({ xmin, ymin, xmax, ymax }) =>
  text("map.box", { x: `${whole(xmin)}\u2013${whole(xmax)}`, y: `${whole(ymin)}\u2013${whole(ymax)}` });

export const formatCell = ({ width, height }) => text("map.cell", { width: whole(width), height: whole(height) });

const formatValue = (value) => (value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(1).replace("-", "\u2212") : number(Number(value.toPrecision(3))));

/** The ends of a map's scale; one that is nothing beside the scale is 0, and not 3.4e-12. */
export const formatScale = ([low, high]) => [low, high].map((end) => formatValue(Math.abs(end) < 1e-4 * (high - low) ? 0 : end));
