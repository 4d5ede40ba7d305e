// The findings of the image that is looked at: score, place among the other images, doubts, map, denial.

import { addFindings, negationOf, removeFinding } from "./asked.js";
import { compareFindings, toggleMap } from "./commands.js";
import { byId, element, icon, iconButton, reconcile, setAttribute, setText } from "./dom.js";
import { reportProblem } from "./messages.js";
import { showRemarks } from "./remarks.js";
import { rankOf } from "./sorting.js";
import { currentImage, findFinding, hasMaps, modelNamed, refusalOf, scoreKey, scoreOf, state, subscribe } from "./store.js";
import { currentLanguage, text } from "./texts.js";
import { formatScore } from "./wording.js";

const SVG = "http://www.w3.org/2000/svg";

export function startFindings() {
  subscribe(["findings", "scores", "current", "panes", "images", "models", "language"], show);
  show();
}

function show() {
  reconcile(byId("findings"), state.findings, { key: ({ label }) => `${currentLanguage()} ${label}`, create, update });
  const model = modelNamed(state.model);
  const notes = describeWeights(model);
  byId("weights-note").hidden = notes.length === 0;
  setText(byId("weights-note"), notes.join(" "));
  const differs = model?.style.score_kind === "logit_difference";
  setText(byId("score-note"), text(model?.calibrated ? "scores.calibrated" : differs ? "scores.differences" : "scores.logits"));
}

/** What is to be known of weights before their scores are read, line by line. */
function describeWeights(model) {
  if (!model) return [];
  return [
    model.demo ? text("weights.demo") : "",
    model.style.linted ? "" : text("weights.unlinted", { family: model.family }),
    model.map_kind ? "" : text("weights.mapless"),
  ].filter(Boolean);
}

function create({ label }) {
  const map = element("button", { type: "button", class: "map-button", on: { click: () => toggleMap(label) } }, icon("map"), element("span", { text: text("map.short") }));
  return element(
    "li",
    { class: "finding" },
    element(
      "div",
      { class: "finding-line" },
      element("span", { class: "finding-label", lang: "en", text: label }),
      element("span", { class: "tag", text: text("unfamiliar.short"), title: text("unfamiliar.long") }),
      element("span", { class: "finding-score" }),
    ),
    element("div", { class: "finding-place" }, createStrip(), element("span", { class: "faint place-text" })),
    element("p", { class: "faint prompt", lang: "en" }),
    element("ul", { class: "lint" }),
    element(
      "div",
      { class: "finding-actions" },
      map,
      iconButton("negate", text("negation.compare", { finding: label, negation: negationOf(label) }), () => compareWithNegation(label), { class: "quiet negate" }),
      iconButton("close", text("finding.remove", { finding: label }), () => removeFinding(label)),
    ),
  );
}

function update(item, finding) {
  const part = (name) => item.querySelector(name);
  const image = currentImage();
  const score = image && scoreOf(image, finding.label);
  const waiting = image && state.scores.get(scoreKey(image.id, finding.label, state.model))?.waiting;
  setText(part(".prompt"), finding.negative ? `${finding.prompt} \u2212 ${finding.negative}` : finding.prompt);
  part(".tag").hidden = finding.unfamiliar !== true;
  showRemarks(part(".lint"), finding.remarks);
  const shown = score ? formatScore(score, modelNamed(state.model)) : null;
  const value = part(".finding-score");
  setText(value, shown ? [shown.short, shown.second].filter(Boolean).join(" \u00b7 ") : waiting ? "\u2026" : "\u2013");
  setAttribute(value, "title", shown?.long);
  showPlace(part(".finding-place"), image && rankOf(image, finding.label));
  const button = part(".map-button");
  setAttribute(button, "aria-pressed", String(state.panes[0].finding === finding.label));
  setAttribute(button, "aria-label", text("map.toggle", { finding: finding.label }));
  const mapless = !hasMaps(state.model);
  button.disabled = mapless || !image?.facts || Boolean(refusalOf(image));
  part(".negate").disabled = mapless;
  for (const each of [button, part(".negate")]) {
    setAttribute(each, "aria-describedby", mapless ? "weights-note" : null);
    setAttribute(each, "title", mapless ? text("weights.mapless") : each.getAttribute("aria-label"));
  }
}

/** Adds the denial of a finding as a finding of its own, and shows the maps of both. */
async function compareWithNegation(label) {
  const other = negationOf(label);
  try {
    if (!findFinding(other)) await addFindings([other]);
    if (findFinding(other)) compareFindings(label, other);
  } catch (error) {
    reportProblem(error);
  }
}

function createStrip() {
  const strip = document.createElementNS(SVG, "svg");
  strip.setAttribute("class", "strip");
  strip.setAttribute("viewBox", "0 0 120 12");
  strip.setAttribute("preserveAspectRatio", "none");
  strip.setAttribute("aria-hidden", "true");
  return strip;
}

/** All images' scores for the finding as ticks along a line, this image's the tall one: the reading that logits allow. */
function showPlace(line, place) {
  line.hidden = !place || place.count < 2;
  if (line.hidden) return;
  const [low, high] = [Math.min(...place.logits), Math.max(...place.logits)];
  const x = (logit) => (high > low ? 2 + (116 * (logit - low)) / (high - low) : 60);
  const tick = (logit, name, y1, y2) => {
    const made = document.createElementNS(SVG, "line");
    for (const [key, value] of Object.entries({ x1: x(logit), x2: x(logit), y1, y2, class: name })) made.setAttribute(key, value);
    return made;
  };
  line.firstElementChild.replaceChildren(...place.logits.map((logit) => tick(logit, "tick", 4, 8)), tick(place.own, "own", 0, 12));
  setText(line.lastElementChild, text("place", { rank: place.rank, count: place.count }));
}
