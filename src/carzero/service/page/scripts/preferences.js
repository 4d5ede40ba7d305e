// What the reader prefers: language, theme, single keys. Kept by the browser; nothing of images or findings is.

import { fillTexts, loadTexts, preferredLanguage, LANGUAGES } from "./texts.js";

export const THEMES = ["system", "light", "dark"];

const STORE = "carzero";

export const preferences = { language: "", theme: "system", singleKeys: true, ...read() };

function read() {
  let kept = null;
  try {
    kept = JSON.parse(localStorage.getItem(STORE));
  } catch {
    // a browser may forbid keeping anything, and someone may have kept something else there
  }
  return Object.fromEntries(Object.entries(kept ?? {}).filter(([name, value]) => isValid(name, value)));
}

function isValid(name, value) {
  return { language: value in LANGUAGES, theme: THEMES.includes(value), singleKeys: typeof value === "boolean" }[name] ?? false;
}

function keep() {
  try {
    localStorage.setItem(STORE, JSON.stringify(preferences));
  } catch {
    // as above: it then holds until the page is closed
  }
}

/** Loads the texts of the language that was chosen, or that the browser asks for, and sets the theme. */
export async function applyPreferences() {
  applyTheme();
  await loadTexts(preferences.language || preferredLanguage());
  fillTexts();
}

function applyTheme() {
  if (preferences.theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = preferences.theme;
}

export function chooseTheme(name) {
  preferences.theme = name;
  keep();
  applyTheme();
}

export function setSingleKeys(used) {
  preferences.singleKeys = used;
  keep();
}

/** Changes the language of everything on the page, whatever it shows. */
let onLanguage = () => {};

export function onLanguageChange(listener) {
  onLanguage = listener;
}

export async function chooseLanguage(name) {
  preferences.language = name;
  keep();
  await loadTexts(name);
  fillTexts();
  onLanguage();
}
