// The score table as a file that spreadsheets and `carzero evaluate` read; no text in it runs as a formula.

import { orderedImages } from "./sorting.js";
import { modelNamed, scoreOf, state } from "./store.js";

const MARK = "\ufeff"; // tells spreadsheets that it is UTF-8
const NUMBER = /^'*[+-]?\d+(\.\d*)?(e[+-]?\d+)?$/i;
const FORMULA = /^(?:['\s]*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n])/;

/** A value as a cell: a text that a spreadsheet would run gets an apostrophe, as in the tables of `carzero predict`. */
export function toCell(value) {
  if (typeof value !== "string") return value === null || value === undefined ? "" : String(value);
  const safe = FORMULA.test(value) && !NUMBER.test(value) ? `'${value}` : value;
  return /[",\r\n;]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Rows of values as the text of a file. */
export const toCsv = (rows) => MARK + rows.map((row) => row.map(toCell).join(",")).join("\r\n") + "\r\n";

/** One row a scored image in the order of the table: logits, probabilities where there are some, doubts, weights. */
export function scoreRows() {
  const labels = state.findings.map(({ label }) => label);
  const images = orderedImages().filter((image) => labels.some((label) => scoreOf(image, label)));
  const calibrated = labels.filter((label) => images.some((image) => typeof scoreOf(image, label)?.probability === "number"));
  const unfamiliar = state.findings.filter((finding) => finding.unfamiliar).map(({ label }) => label).join("; ");
  const { name, weights_sha256: hash } = modelNamed(state.model);
  const header = ["image_id", "view", ...labels.map((label) => `logit:${label}`), ...calibrated.map((label) => `prob:${label}`), "unfamiliar", "warnings", "weights", "weights_sha256"];
  const rows = images.map((image) => [
    image.name,
    image.facts?.view ?? "",
    ...labels.map((label) => scoreOf(image, label)?.logit),
    ...calibrated.map((label) => scoreOf(image, label)?.probability),
    unfamiliar,
    image.remarks.join(" "),
    name,
    hash,
  ]);
  return [header, ...rows];
}
