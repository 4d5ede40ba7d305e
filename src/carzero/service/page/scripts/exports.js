// Files for the reader: the table, the manifest, the picture.

import { byId, element } from "./dom.js";
import { scoreRows, toCsv } from "./csv.js";
import { say } from "./live.js";
import { drawPicture } from "./picture.js";
import { currentImage, modelNamed, refusalOf, state, subscribe } from "./store.js";
import { text } from "./texts.js";

export function startExports() {
  byId("save-table").addEventListener("click", saveTable);
  byId("save-manifest").addEventListener("click", saveManifest);
  byId("save-picture").addEventListener("click", () => void savePicture());
  subscribe(["scores", "findings", "images"], show);
  show();
}

function show() {
  const any = [...state.scores.values()].some((score) => "logit" in score);
  byId("save-table").disabled = !any || state.findings.length === 0;
  byId("save-manifest").disabled = !any;
}

function saveTable() {
  const rows = scoreRows();
  save(new Blob([toCsv(rows)], { type: "text/csv" }), "scores.csv");
  const left = state.images.length - (rows.length - 1);
  say(text("export.rows", { count: rows.length - 1 }) + (left ? ` ${text("export.left", { count: left })}` : ""));
}

function saveManifest() {
  save(new Blob([JSON.stringify(buildManifest(), null, 2) + "\n"], { type: "application/json" }), "scores.manifest.json");
  say(text("export.saved", { name: "scores.manifest.json" }));
}

/** What the scores on the page come from: the service's own manifests, what was asked, and which images have no scores. */
export function buildManifest() {
  const { name, weights_sha256: hash, calibrated, style } = modelNamed(state.model);
  return {
    written_by: "the page of carzero serve",
    date: new Date().toISOString(),
    weights: name,
    weights_sha256: hash,
    score_kind: style.score_kind,
    calibrated,
    findings: state.findings.map(({ label, prompt, negative, unfamiliar, remarks }) => ({ label, prompt, negative, unfamiliar, remarks })),
    images: state.images.map(({ name: image_id, file, force, remarks }) => ({ image_id, bytes: file.size, force, remarks })),
    failures: state.images.filter((image) => refusalOf(image) ?? image.problem).map((image) => ({ image_id: image.name, reason: (refusalOf(image) ?? image.problem).message })),
    service: [...state.manifests.values()],
    note: "Scores are raw, of the score_kind above, unless a probability is stated: compare them between images for one finding. Research use only.",
  };
}

export async function savePicture() {
  const image = currentImage();
  if (!image?.facts) return;
  const shown = state.panes.map(({ finding }) => finding).filter(Boolean);
  const name = [image.name.split("/").at(-1).replace(/\.[^.]*$/, ""), ...shown].join("__").replace(/[^\p{L}\p{N}._-]+/gu, "-");
  save(await drawPicture(), `${name}.png`);
  say(text("export.saved", { name: `${name}.png` }));
}

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = element("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}
