// Images brought in: dropped, chosen, a folder, the example; how many, and what was left out.

import { fetchExample } from "./api.js";
import { byId } from "./dom.js";
import { MOST_IMAGES, openImages } from "./images.js";
import { filesOfDrop, filesOfInput, hasFiles, isArchive, partImages } from "./intake.js";
import { say } from "./live.js";
import { closeMessage, reportProblem, showMessage } from "./messages.js";
import { state } from "./store.js";
import { text } from "./texts.js";

export function startIntake() {
  for (const [input, ...buttons] of [["files", "open-files", "start-files"], ["folder", "open-folder", "start-folder"]]) {
    for (const button of buttons) byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", () => {
      const files = filesOfInput(byId(input));
      byId(input).value = "";
      take(files);
    });
  }
  byId("start-example").addEventListener("click", () => void openExample());
  listenToDrags();
}

export const chooseFiles = () => byId("files").click();

function listenToDrags() {
  let depth = 0; // of elements entered and not left
  const curtain = (shown) => (byId("curtain").hidden = !shown);
  document.addEventListener("dragenter", (event) => {
    if (!hasFiles(event.dataTransfer)) return;
    depth += 1;
    curtain(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!hasFiles(event.dataTransfer)) return;
    depth = Math.max(0, depth - 1);
    if (depth === 0) curtain(false);
  });
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event.dataTransfer)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event.dataTransfer)) return;
    event.preventDefault();
    depth = 0;
    curtain(false);
    performance.mark("carzero:drop");
    void filesOfDrop(event.dataTransfer).then(take);
  });
}

async function openExample() {
  try {
    take([await fetchExample()].map((file) => ({ file, name: file.name })));
  } catch (error) {
    reportProblem(error);
  }
}

function take(files) {
  const { images, others } = partImages(files);
  closeMessage("toomany");
  if (others.length > 0 || images.length === 0) tellLeftOut(images, others);
  const room = MOST_IMAGES - state.images.length;
  if (images.length > room) return offerFewer(images, room);
  const { added, known } = openImages(images);
  const line = [added ? text("images.added", { count: added }) : "", known ? text("images.known", { count: known }) : ""];
  say(line.filter(Boolean).join(" "));
}

function tellLeftOut(images, others) {
  if (others.length === 0) return showMessage("leftout", text("images.none"), { severity: "error" });
  const names = others.slice(0, 5).map(({ name }) => name).join(", ") + (others.length > 5 ? ", \u2026" : "");
  const what = [text("images.leftout", { count: others.length }), others.some(isArchive) ? text("images.archives") : ""];
  showMessage("leftout", what.filter(Boolean).join(" "), { severity: images.length ? "note" : "error", detail: names });
}

/** More than the page can hold: nothing is opened before the reader has said which. */
function offerFewer(images, room) {
  const actions = room > 0 ? [{ label: text("images.first", { count: room }), act: () => openImages(images.slice(0, room)) }] : [];
  showMessage("toomany", text("images.toomany", { count: images.length, most: MOST_IMAGES, open: state.images.length }), { severity: "error", actions });
}
