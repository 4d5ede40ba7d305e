// The page's dialogs: help, what scores mean, settings, and the key of the service.

import { byId, element } from "./dom.js";
import { chooseLanguage, chooseTheme, preferences, setSingleKeys, THEMES } from "./preferences.js";
import { SHORTCUTS } from "./shortcuts.js";
import { currentLanguage, LANGUAGES, text } from "./texts.js";

export function startDialogs() {
  byId("open-help").addEventListener("click", openHelp);
  byId("open-settings").addEventListener("click", openSettings);
  byId("open-scores").addEventListener("click", openScores);
}

/** Shows a dialog that is taken away when it closes; the browser keeps the focus inside and gives it back. */
function open(id, title, ...content) {
  document.querySelector("dialog[open]")?.close();
  const close = element("button", { type: "button", text: text("close"), on: { click: () => dialog.close() } });
  const heading = element("h2", { id: `${id}-title`, text: title });
  const dialog = element("dialog", { id, "aria-labelledby": `${id}-title` }, element("div", { class: "dialog-head" }, heading, close), ...content);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  byId("dialogs").append(dialog);
  dialog.showModal();
  return dialog;
}

export function openHelp() {
  const rows = (entries) => entries.map(([keys, about]) => element("tr", {}, element("th", { scope: "row" }, ...keys.map((key) => element("kbd", { text: key }))), element("td", { text: about })));
  const keys = SHORTCUTS.map(({ shown, about }) => [shown, text(about)]);
  const pointer = ["drag", "shift", "wheel", "pinch", "double"].map((name) => [[text(`pointer.${name}`)], text(`pointer.${name}.does`)]);
  const table = (caption, entries) => element("table", { class: "keys" }, element("caption", { text: caption }), element("tbody", {}, ...rows(entries)));
  const single = element("input", { type: "checkbox", id: "single-keys", on: { change: (event) => setSingleKeys(event.target.checked) } });
  single.checked = preferences.singleKeys;
  open("help", text("help.title"), table(text("help.pointer"), pointer), table(text("help.keys"), keys), element("label", { class: "check" }, single, text("help.single")));
}

export function openScores() {
  const points = ["logit", "finding", "probability", "unfamiliar", "map", "cell", "demo"];
  open("about-scores", text("scores.title"), element("ul", { class: "points" }, ...points.map((point) => element("li", { text: text(`scores.${point}`) }))));
}

function openSettings() {
  return open(
    "settings",
    text("settings.title"),
    choice(text("settings.language"), "language", Object.entries(LANGUAGES), currentLanguage(), async (name) => {
      await chooseLanguage(name);
      openSettings().querySelector(`[value=${name}]`).focus();
    }),
    choice(text("settings.theme"), "theme", THEMES.map((name) => [name, text(`theme.${name}`)]), preferences.theme, chooseTheme),
  );
}

function choice(legend, name, options, chosen, choose) {
  const entries = options.map(([value, label]) => {
    const radio = element("input", { type: "radio", name, value, on: { change: () => choose(value) } });
    radio.checked = value === chosen;
    return element("label", { class: "check", lang: value in LANGUAGES ? value : null }, radio, label);
  });
  return element("fieldset", {}, element("legend", { text: legend }), ...entries);
}

/**
 * Asks for the key of the service.
 * @param {boolean} refused whether one was given and refused
 * @returns {Promise<string>} "" where none is given
 */
export function askForKey(refused) {
  return new Promise((resolve) => {
    let given = "";
    const field = element("input", { type: "password", id: "service-key", autocomplete: "off", required: true });
    const form = element(
      "form",
      { on: { submit: (event) => (event.preventDefault(), (given = field.value), dialog.close()) } },
      element("label", { for: "service-key", text: text("key.label") }),
      field,
      refused ? element("p", { class: "doubt", role: "alert", text: text("key.refused") }) : null,
      element("p", { class: "faint", text: text("key.kept") }),
      element("button", { type: "submit", class: "primary", text: text("key.use") }),
    );
    const dialog = open("key", text("key.title"), form);
    dialog.addEventListener("close", () => resolve(given));
  });
}
