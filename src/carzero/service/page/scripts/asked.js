// The findings that are asked for: added by words, checked by the service's linter, removed.

import { lint } from "./api.js";
import { retryWords } from "./scoring.js";
import { change, findFinding, state } from "./store.js";

const MOST_FINDINGS = 50;

/** Findings that the page takes: as many as one request may ask of any of the weights. */
export function mostFindings() {
  const sentences = state.models.some(({ style }) => style.score_kind === "logit_difference") ? 2 : 1;
  return Math.min(MOST_FINDINGS, Math.floor((state.limits.prompts ?? Infinity) / sentences));
}

// Errors of the linter that leave a prompt which can be scored, whatever the score means; all others leave none.
const SCORED_ALL_THE_SAME = new Set(["duplicate", "denied-prompt", "sides", "dropped-sentence", "unknown-word"]);

/** The findings in what was typed: one, or several between commas, semicolons or lines. */
export function splitWords(typed) {
  const words = typed.split(/[,;\n]/).map((word) => word.trim().replace(/\s+/g, " "));
  return [...new Set(words.filter(Boolean))];
}

/** How the denial of a finding is asked for; of a denial, what it denies. */
export const negationOf = (label) => (/^no /i.test(label) ? label.slice(3) : `no ${label}`);

/**
 * Adds findings once the linter has read them.
 * @returns {Promise<{added: string[], tooMany: boolean, refused: Array}>} refused: remarks on those that cannot be asked
 * @throws {ServiceError} the service refuses the request
 */
export async function addFindings(words) {
  const fresh = words.filter((word) => !findFinding(word));
  if (state.findings.length + fresh.length > mostFindings()) return { added: [], tooMany: true, refused: [] };
  if (fresh.length === 0) return { added: [], tooMany: false, refused: [] };
  const labels = [...state.findings.map(({ label }) => label), ...fresh];
  const answer = await lint(labels, state.model);
  const refused = answer.labels.filter(({ label }) => fresh.includes(label)).flatMap(findRefusal);
  const added = fresh.filter((label) => !refused.some((remark) => remark.label === label));
  for (const label of added) {
    if (!findFinding(label)) state.findings.push({ label, prompt: "", negative: null, remarks: [], unfamiliar: null });
  }
  takeRemarks(answer);
  retryWords();
  change("findings");
  return { added, tooMany: false, refused };
}

/** The remark that says why a label cannot be asked, if one does. */
function findRefusal({ label, remarks }) {
  const found = remarks.find(({ code, severity }) => severity === "error" && !SCORED_ALL_THE_SAME.has(code));
  return found ? [{ ...found, label }] : [];
}

export function removeFinding(label) {
  state.findings = state.findings.filter((finding) => finding.label !== label);
  for (const pane of state.panes) if (pane.finding === label) pane.finding = null;
  if (state.sort.by === `finding:${label}`) state.sort = { by: "order", descending: false };
  retryWords();
  change("findings", "panes", "sort");
  void lintAgain();
}

/** Reads all findings once more, as after a change of weights or when one is gone. */
export async function lintAgain() {
  if (state.findings.length === 0) return;
  const model = state.model;
  const answer = await lint(state.findings.map(({ label }) => label), model);
  if (model !== state.model) return;
  takeRemarks(answer);
  change("findings");
}

function takeRemarks(answer) {
  for (const { label, prompt, negative, remarks, unfamiliar } of answer.labels) {
    const finding = findFinding(label);
    if (finding) Object.assign(finding, { prompt, negative, remarks, unfamiliar });
  }
}
