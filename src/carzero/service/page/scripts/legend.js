// What the colours of a map mean: the ends of its scale, its peak, its box, how large a cell is, and whether to trust it.

import { element, setText } from "./dom.js";
import { drawScale } from "./heat.js";
import { percent, text } from "./texts.js";
import { formatBox, formatCell, formatPoint, formatScale } from "./wording.js";

export class Legend {
  constructor() {
    this.bar = element("canvas", { class: "scale-bar", width: "160", height: "10", "aria-hidden": "true" });
    [this.low, this.high, this.range, this.places, this.doubt] = ["scale-end", "scale-end", "faint", "places", "doubt"].map((name) => element("span", { class: name }));
    this.kind = element("p", { lang: "en" });
    this.about = element("details", {}, element("summary", { text: text("map.what") }), this.kind);
    this.root = element(
      "div",
      { class: "legend", hidden: true },
      element("div", { class: "scale" }, this.low, this.bar, this.high, this.range),
      this.places,
      this.doubt,
      this.about,
    );
  }

  /**
   * @param {Object|null} map of the service, or what stands for one that is not there
   * @param {Object|null} model
   * @param {{opacity: number}} overlay
   */
  update(map, model, { opacity }) {
    this.root.hidden = !map?.map;
    if (this.root.hidden) return;
    const [low, high] = formatScale(map.scale);
    setText(this.low, low);
    setText(this.high, high);
    setText(this.range, describeColours(map, model));
    setText(this.places, describePlaces(map));
    setText(this.doubt, model?.demo ? text("map.demo") : "");
    setText(this.kind, model?.map_kind ?? "");
    this.about.hidden = !model?.map_kind;
    drawScale(this.bar, opacity * map.strength);
  }
}

/** Whether colours of two maps of these weights compare, and what they say of the finding. */
export function describeColours(map, model) {
  if (model?.map_scale) return text("map.fixed");
  const known = map.probability !== null && map.probability !== undefined;
  return known ? text("map.faded", { probability: percent(map.probability) }) : `${text("map.own")}; ${text("map.where")}`;
}

/** Peak, box and cell of a map in one line, all in the image's own pixels. */
export function describePlaces(map) {
  const peak = map.peak.inside ? formatPoint(map.peak) : text("map.outside");
  const box = map.box ? formatBox(map.box) : text("map.nobox");
  return [peak, box, formatCell(map.cell)].join(" \u00b7 ");
}
