// Lines that stay until they are closed: what could not be done, what was left out, and what to do next.

import { byId, element, iconButton } from "./dom.js";
import { ServiceError } from "./api.js";
import { hasText, text } from "./texts.js";

/**
 * Shows a message, in the place of an older one of the same kind.
 * @param {string} kind
 * @param {string} line
 * @param {{severity?: string, actions?: Array<{label: string, act: function}>, detail?: string}} [more]
 */
export function showMessage(kind, line, { severity = "note", actions = [], detail = "" } = {}) {
  const box = element(
    "div",
    { class: `message ${severity}`, role: severity === "error" ? "alert" : "status", data: { kind } },
    element(
      "div",
      { class: "message-text" },
      element("p", { text: line }),
      detail ? element("p", { class: "faint", lang: "en", text: detail }) : null,
      ...actions.map(({ label, act }) => element("button", { type: "button", text: label, on: { click: () => (closeMessage(kind), act()) } })),
    ),
    iconButton("close", text("close"), () => closeMessage(kind)),
  );
  closeMessage(kind);
  byId("messages").append(box);
}

export function closeMessage(kind) {
  for (const box of [...byId("messages").children]) if (box.dataset.kind === kind) box.remove();
}

/** Says why a request of the reader's could not be answered; what is no refusal of the service is thrown on. */
export function reportProblem(error) {
  if (!(error instanceof ServiceError)) throw error;
  const known = `problem.${error.title}`;
  showMessage("problem", hasText(known) ? text(known) : text("problem.refused"), { severity: "error", detail: [error.message, error.next].filter(Boolean).join(" ") });
}
