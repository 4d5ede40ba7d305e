// The strip below the image: what it is, its window, magnification, and the value under the pointer; doubts about it.

import { paneSize } from "./commands.js";
import { byId, element, reconcile, setText } from "./dom.js";
import { currentImage, state, subscribe } from "./store.js";
import { number, text } from "./texts.js";
import { resolve } from "./viewport.js";
import { toFileUnit, toFileWindow } from "./voi.js";

let pointer = null;

export function startStatus() {
  subscribe(["current", "images", "window", "view", "panes", "language"], showStatus);
  showStatus();
}

/** Shows a pixel's place and value, or nothing. */
export function showPointer(point) {
  pointer = point;
  showStatus();
}

function showStatus() {
  const image = currentImage();
  reconcile(byId("status"), image?.facts ? describe(image) : [], {
    key: ([name]) => name,
    create: ([name]) => element("div", { class: `status-${name}` }, element("dt"), element("dd")),
    update: (child, [name, value]) => {
      setText(child.firstElementChild, text(`status.${name}`));
      setText(child.lastElementChild, value);
    },
  });
  reconcile(byId("image-remarks"), image?.remarks ?? [], {
    key: (remark) => remark,
    create: (remark) => element("p", { lang: "en", text: remark }),
    update: () => {},
  });
}

function describe({ name, facts }) {
  const { centre, width } = toFileWindow(state.window ?? facts.window, facts);
  const { unit } = paneSize();
  const { scale } = resolve(state.view, facts, paneSize());
  const kind = [text("status.pixels", { columns: facts.columns, rows: facts.rows }), facts.encoding, facts.view].filter(Boolean).join(" \u00b7 ");
  const level = text("status.levels", { width: number(width, 0), centre: number(centre, 0) }) + (state.inverted ? ` ${text("status.inverted")}` : "");
  return [
    ["name", name],
    ["kind", kind],
    ["window", level],
    ["zoom", `${number((100 * scale) / unit, 0)}\u202f%`],
    ["value", pointer ? text("status.point", { x: pointer.x, y: pointer.y, value: toFileUnit(pointer.value, facts) }) : "\u2013"],
  ];
}
