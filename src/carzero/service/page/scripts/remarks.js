// Remarks of the linter as a list: in the reader's language where there is a text for the rule, the service's words below.

import { element, reconcile } from "./dom.js";
import { currentLanguage, hasText, text } from "./texts.js";

/** Shows remarks in a list element. */
export function showRemarks(list, remarks) {
  reconcile(list, remarks, {
    key: ({ code, message }) => `${currentLanguage()} ${code} ${message}`,
    create: createRemark,
    update: () => {},
  });
}

function createRemark({ code, severity, message }) {
  const key = `lint.${code}`;
  const short = hasText(key) ? text(key) : code;
  return element(
    "li",
    { class: `remark ${severity}` },
    element("span", { class: "remark-severity", text: text(`severity.${severity}`) }),
    element("span", { class: "remark-short", text: short }),
    element("details", {}, element("summary", { text: text("remark.more") }), element("p", { lang: "en", text: message })),
  );
}
