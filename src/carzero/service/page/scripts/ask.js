// The field for findings: suggestions and the linter's remarks while one types, added by Enter.

import { lint, ServiceError, suggest } from "./api.js";
import { addFindings, mostFindings, splitWords } from "./asked.js";
import { byId, element } from "./dom.js";
import { say } from "./live.js";
import { showRemarks } from "./remarks.js";
import { state } from "./store.js";
import { text } from "./texts.js";

const PAUSE_MS = 120;

let active = -1;
let timer = 0;
let asking = new AbortController();

const input = () => byId("ask-input");
const list = () => byId("ask-list");

export function startAsk() {
  const field = input();
  field.addEventListener("input", () => later());
  field.addEventListener("click", () => later());
  field.addEventListener("keydown", onKey);
  field.addEventListener("blur", () => open([]));
  field.addEventListener("paste", pasteLines);
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    void add(field.value);
  });
}

/** A list of lines is pasted as a list: the field itself would make one finding of all lines. */
function pasteLines(event) {
  const pasted = event.clipboardData.getData("text");
  if (!/[\r\n]/.test(pasted.trim())) return;
  event.preventDefault();
  const field = input();
  field.setRangeText(pasted.trim().split(/\s*[\r\n]+\s*/).join(", "), field.selectionStart, field.selectionEnd, "end");
  later();
}

/** What is typed last: behind the last comma. */
const lastWord = () => input().value.split(/[,;]/).at(-1).trim();

function later() {
  clearTimeout(timer);
  timer = setTimeout(() => void look(), PAUSE_MS);
}

async function look() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const words = splitWords(input().value);
  try {
    const [found, checked] = await Promise.all([
      suggest(lastWord(), state.model, signal),
      words.length ? lint(words, state.model, signal) : { labels: [] },
    ]);
    if (signal.aborted) return;
    const taken = new Set(state.findings.map(({ label }) => label));
    open(document.activeElement === input() ? found.suggestions.filter(({ label }) => !taken.has(label)) : []);
    showRemarks(byId("ask-remarks"), checked.labels.flatMap(({ remarks }) => remarks));
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof ServiceError)) throw error;
    showRefusal(error);
  }
}

/** Shows suggestions; none closes the list. */
function open(suggestions) {
  active = -1;
  const field = input();
  field.setAttribute("aria-expanded", String(suggestions.length > 0));
  field.removeAttribute("aria-activedescendant");
  list().hidden = suggestions.length === 0;
  list().replaceChildren(
    ...suggestions.map(({ label, matched, familiar }, index) =>
      element(
        "li",
        { role: "option", id: `ask-option-${index}`, "aria-selected": "false", on: { mousedown: (event) => pick(event, label) } },
        element("span", { text: label }),
        matched && matched.toLowerCase() !== label.toLowerCase() ? element("span", { class: "faint matched", text: matched }) : null,
        familiar === false ? element("span", { class: "tag", text: text("unfamiliar.short") }) : null,
      ),
    ),
  );
}

function pick(event, label) {
  event.preventDefault(); // the field keeps the focus
  complete(label);
  void add(input().value);
}

/** Puts a suggestion in the place of what is typed last. */
function complete(label) {
  const parts = input().value.split(/([,;])/);
  parts[parts.length - 1] = parts.length > 1 ? ` ${label}` : label;
  input().value = parts.join("");
}

function onKey(event) {
  const options = [...list().children];
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    if (options.length === 0) return later();
    const by = event.key === "ArrowDown" ? 1 : -1;
    const from = active < 0 && by < 0 ? options.length : active;
    activate(options, (from + by + options.length) % options.length);
  } else if (event.key === "Enter" && active >= 0) {
    event.preventDefault();
    complete(options[active].firstElementChild.textContent);
    void add(input().value);
  } else if (event.key === "Escape" && options.length > 0) {
    event.preventDefault();
    open([]);
  }
}

function activate(options, index) {
  active = index;
  options.forEach((option, place) => option.setAttribute("aria-selected", String(place === index)));
  options[index].scrollIntoView({ block: "nearest" });
  input().setAttribute("aria-activedescendant", options[index].id);
}

async function add(typed) {
  clearTimeout(timer);
  asking.abort();
  open([]);
  const words = splitWords(typed);
  if (words.length === 0) return;
  try {
    const { added, tooMany, refused } = await addFindings(words);
    if (tooMany) return showRefusal(new ServiceError({ detail: text("ask.toomany", { count: mostFindings() }) }));
    input().value = refused.map(({ label }) => label).join(", ");
    showRemarks(byId("ask-remarks"), refused);
    if (refused.length === 0) say(added.length ? text("ask.added", { findings: added.join(", ") }) : text("ask.known"));
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    showRefusal(error);
  }
}

function showRefusal(error) {
  showRemarks(byId("ask-remarks"), [{ code: error.status ? "refused" : "failed", severity: "error", message: error.message }]);
}

/** Puts the cursor into the field. */
export const focusAsk = () => input().focus();
