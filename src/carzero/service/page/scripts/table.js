// The table of scores: an image a row, a finding a column, sorted by any of them; a score opens its map.

import { openMap, toggleMap } from "./commands.js";
import { byId, element, iconButton, reconcile, setAttribute, setText } from "./dom.js";
import { look, removeImage } from "./images.js";
import { canBeForced, countScored, retry, scoreAnyway } from "./scoring.js";
import { orderedImages, sortBy } from "./sorting.js";
import { change, hasMaps, modelNamed, refusalOf, scoreKey, scoreOf, state, subscribe } from "./store.js";
import { currentLanguage, text } from "./texts.js";
import { watchRow } from "./thumbs.js";
import { formatScore } from "./wording.js";

let table = null;
let head = null;
let body = null;
let ranges = new Map(); // finding -> [lowest, highest] logit, where more than two images have one

export function startTable() {
  head = element("tr");
  body = element("tbody");
  table = element("table", { class: "scores" }, element("caption", { class: "unseen", data: { text: "table.caption" } }), element("thead", {}, head), body);
  byId("table-frame").replaceChildren(table);
  byId("table-frame").addEventListener("keydown", moveFocus);
  subscribe(["images", "findings", "scores", "current", "sort", "panes", "models", "language"], show);
  show();
}

function show() {
  byId("images-section").hidden = state.images.length === 0;
  setText(byId("images-title"), text("images.title", { count: state.images.length }));
  const columns = ["name", ...state.findings.map(({ label }) => `finding:${label}`)];
  ranges = findRanges();
  reconcile(head, columns, { key: (column) => `${currentLanguage()} ${column}`, create: createHeading, update: updateHeading });
  reconcile(body, orderedImages(), { key: ({ id }) => `${currentLanguage()} ${id}`, create: createRow, update: updateRow });
  showProgress();
}

function showProgress() {
  const { done, failed, total } = countScored();
  const parts = [];
  if (state.findings.length > 0 && done + failed < total) parts.push(text("progress.scoring", { done, total }));
  if (failed > 0) parts.push(text("progress.failed", { count: failed }));
  const line = byId("progress");
  if (line.dataset.line === parts.join(" ")) return;
  line.dataset.line = parts.join(" ");
  line.replaceChildren(parts.join(" "));
  if (failed > 0) line.append(" ", element("button", { type: "button", class: "link", text: text("retry"), on: { click: retry } }));
}

function createHeading(column) {
  const label = column === "name" ? text("table.image") : column.slice("finding:".length);
  const button = element("button", { type: "button", class: "sort", lang: column === "name" ? null : "en", on: { click: () => (sortBy(column), change("sort")) } }, element("span", { text: label }), element("span", { class: "sort-mark", "aria-hidden": "true" }));
  return element("th", { scope: "col", class: column === "name" ? "name" : "score" }, button);
}

function updateHeading(cell, column) {
  const { by, descending } = state.sort;
  const sorted = by === column ? (descending ? "descending" : "ascending") : "none";
  setAttribute(cell, "aria-sort", sorted);
  setText(cell.querySelector(".sort-mark"), { none: "", descending: "\u2193", ascending: "\u2191" }[sorted]);
}

function createRow(image) {
  const open = element("button", { type: "button", class: "image-name", on: { click: () => void look(image.id) } }, element("span", { class: "thumb-frame" }), element("span", { class: "image-label", text: image.name }), element("span", { class: "tag doubted", hidden: "", text: "!" }));
  const remove = iconButton("close", text("images.remove", { name: image.name }), () => removeImage(image), { class: "quiet remove" });
  const row = element("tr", { data: { image: String(image.id) } }, element("th", { scope: "row", class: "name" }, element("div", { class: "name-line" }, open, remove)));
  watchRow(row);
  return row;
}

function updateRow(row, image) {
  setAttribute(row, "class", image.id === state.current ? "current" : null);
  const open = row.querySelector(".image-name");
  setAttribute(open, "aria-current", image.id === state.current ? "true" : null);
  const frame = row.querySelector(".thumb-frame");
  if (image.thumb && !frame.firstChild) frame.append(image.thumb);
  showDoubts(open, image);
  const [, ...cells] = row.children;
  const problem = refusalOf(image) ?? image.problem;
  if (problem) {
    const known = cells[0]?.classList.contains("failed") ? cells[0] : null;
    for (const cell of cells) if (cell !== known) cell.remove();
    const cell = known ?? row.appendChild(element("td", { class: "failed" }));
    cell.colSpan = Math.max(1, state.findings.length);
    if (cell.dataset.reason !== problem.message) {
      cell.dataset.reason = problem.message;
      const anyway = canBeForced(image, problem) ? element("button", { type: "button", class: "link", text: text("image.anyway"), on: { click: () => scoreAnyway(image) } }) : null;
      cell.replaceChildren(element("div", { class: "reason" }, element("strong", { text: text("image.unscored") }), " ", element("span", { lang: "en", text: problem.message }), " ", anyway));
    }
    return;
  }
  for (const cell of cells) if (cell.classList.contains("failed")) cell.remove();
  reconcileCells(row, image);
}

/** Marks an image that there are doubts about; they stand below it when it is looked at. */
function showDoubts(open, { name, remarks }) {
  open.querySelector(".doubted").hidden = remarks.length === 0;
  setAttribute(open, "title", remarks.length ? remarks.join("\n") : null);
  setAttribute(open, "aria-label", remarks.length ? text("image.doubted", { name, doubts: remarks.join(" ") }) : null);
}

function findRanges() {
  const found = new Map();
  for (const { label } of state.findings) {
    const logits = state.images.map((image) => scoreOf(image, label)).filter(Boolean).map(({ logit }) => logit);
    if (logits.length > 2) found.set(label, [Math.min(...logits), Math.max(...logits)]);
  }
  return found;
}

/** A cell a finding behind the row's heading. */
function reconcileCells(row, image) {
  const [heading] = row.children;
  const cells = new Map([...row.children].slice(1).map((cell) => [cell.dataset.finding, cell]));
  let last = heading;
  for (const { label } of state.findings) {
    const cell = cells.get(label) ?? createCell(image, label);
    cells.delete(label);
    if (last.nextElementSibling !== cell) last.after(cell);
    updateCell(cell, image, label);
    last = cell;
  }
  for (const cell of cells.values()) cell.remove();
}

function createCell(image, label) {
  const press = () => (!hasMaps(state.model) ? void look(image.id) : image.id === state.current ? toggleMap(label) : openMap(image, label));
  return element("td", { class: "score", data: { finding: label } }, element("button", { type: "button", class: "score-button", on: { click: press } }));
}

function updateCell(cell, image, label) {
  const button = cell.firstElementChild;
  const score = state.scores.get(scoreKey(image.id, label, state.model));
  const known = score && "logit" in score;
  const shown = known ? formatScore(score, modelNamed(state.model)) : null;
  setText(button, shown ? shown.short : score?.waiting ? "\u2026" : "\u2013");
  button.disabled = !known;
  const about = { score: shown?.long, finding: label, image: image.name };
  setAttribute(button, "aria-label", !shown ? null : hasMaps(state.model) ? text("table.open", about) : text("table.look", about));
  setAttribute(button, "title", shown?.long);
  const open = image.id === state.current && state.panes.some((pane) => pane.finding === label);
  setAttribute(button, "aria-pressed", known && hasMaps(state.model) ? String(open) : null);
  const [low, high] = ranges.get(label) ?? [0, 0];
  cell.style.setProperty("--place-share", known && high > low ? String((score.logit - low) / (high - low)) : "0");
}

/** Arrow keys move between the buttons of the table. */
function moveFocus(event) {
  const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  const cell = event.target.closest("td, th");
  if (!by || !cell) return;
  const rows = [...table.rows];
  const row = rows[rows.indexOf(cell.parentElement) + by[0]];
  const target = row?.cells[Math.min(cell.cellIndex + by[1], row.cells.length - 1)]?.querySelector("button");
  if (!target) return;
  event.preventDefault();
  target.focus();
}
