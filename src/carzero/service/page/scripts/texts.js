// Texts of the page in the reader's language: one file a language in texts/, the same keys in each.

export const LANGUAGES = { en: "English", de: "Deutsch" };

let texts = {};
let language = "en";
let plurals = new Intl.PluralRules(language);

/** The language that a browser asks for, of those that there are. */
export function preferredLanguage(wanted = navigator.languages) {
  return wanted.map((name) => name.slice(0, 2).toLowerCase()).find((name) => name in LANGUAGES) ?? "en";
}

/** Loads a language and makes it the document's. */
export async function loadTexts(name) {
  const answer = await fetch(new URL(`../texts/${name}.json`, import.meta.url));
  if (!answer.ok) throw new Error(`texts/${name}.json: ${answer.status}`);
  texts = await answer.json();
  language = name;
  plurals = new Intl.PluralRules(name);
  document.documentElement.lang = name;
}

/** The language of the texts. */
export const currentLanguage = () => language;

/** Whether there is a text of this key. */
export const hasText = (key) => key in texts;

/**
 * A text with values in its {places}. A text of several forms is chosen by `values.count`.
 * @param {string} key
 * @param {Object} [values]
 */
export function text(key, values = {}) {
  let found = texts[key];
  if (found === undefined) {
    console.error(`no text ${key} in ${language}`);
    return key;
  }
  if (typeof found === "object") found = found[plurals.select(values.count)] ?? found.other;
  return found.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    return typeof value === "number" ? number(value) : String(value ?? whole);
  });
}

/** A number as the language writes it. */
export function number(value, digits = undefined) {
  const options = digits === undefined ? { maximumFractionDigits: 2 } : { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(language, options).format(value).replace(/^-/, "\u2212");
}

/** A probability as the language writes it. */
export function percent(value) {
  return new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 1 }).format(value);
}

/** Fills every element that names its text: `data-text` its content, `data-label` its name and tooltip. */
export function fillTexts(root = document) {
  for (const each of root.querySelectorAll("[data-text]")) each.textContent = text(each.dataset.text);
  for (const each of root.querySelectorAll("[data-label]")) {
    const label = text(each.dataset.label);
    each.setAttribute("aria-label", label);
    if (each.matches("button")) {
      const keys = each.getAttribute("aria-keyshortcuts");
      each.title = keys ? `${label} (${keys.toUpperCase()})` : label;
    }
  }
}
