// Starts the page: texts, parts, the service's models.

import { listModels, onKeyNeeded, pause, ServiceError } from "./api.js";
import { lintAgain } from "./asked.js";
import { startAsk } from "./ask.js";
import { startDialogs, askForKey } from "./dialogs.js";
import { byId, fillOptions } from "./dom.js";
import { startIntake } from "./drop.js";
import { startExports } from "./exports.js";
import { startFindings } from "./findings.js";
import { closeMessage, reportProblem, showMessage } from "./messages.js";
import { applyPreferences, onLanguageChange } from "./preferences.js";
import { scoreMissing } from "./scoring.js";
import { startShortcuts } from "./shortcuts.js";
import { startStatus } from "./status.js";
import { change, state, subscribe, titleOf } from "./store.js";
import { startTable } from "./table.js";
import { startThumbs } from "./thumbs.js";
import { fillTexts, text } from "./texts.js";
import { startToolbar } from "./toolbar.js";
import { startViewer } from "./viewer.js";

async function start() {
  await applyPreferences();
  onLanguageChange(() => change("language"));
  onKeyNeeded(askForKey);
  for (const begin of [startViewer, startStatus, startToolbar, startAsk, startFindings, startTable, startExports, startIntake, startDialogs, startShortcuts, startThumbs]) begin();
  fillTexts();
  byId("widen").addEventListener("click", widen);
  byId("weights").addEventListener("change", chooseModel);
  subscribe(["models"], () => fillOptions(byId("weights"), state.models.map((model) => [model.name, titleOf(model)]), state.model));
  subscribe(["images", "findings", "models", "current", "panes"], scoreMissing);
  await loadModels();
  document.body.dataset.state = "ready";
}

/** Asks what the service scores with; while it still loads its weights, until it has. */
async function loadModels() {
  for (;;) {
    try {
      const answer = await listModels();
      closeMessage("loading");
      state.models = answer.models;
      state.limits = answer.limits;
      state.model = answer.models[0].name;
      return change("models");
    } catch (error) {
      if (error.status !== 503) return reportProblem(error);
      if (!document.querySelector('[data-kind="loading"]')) showMessage("loading", text("weights.loading"));
      await pause(0.7);
    }
  }
}

function chooseModel(event) {
  state.model = event.target.value;
  change("models", "scores", "panes");
  lintAgain().catch((error) => {
    if (error instanceof ServiceError) reportProblem(error);
    else throw error;
  });
}

function widen() {
  const wide = byId("main").classList.toggle("wide-panel");
  byId("widen").setAttribute("aria-pressed", String(wide));
}

await start();
