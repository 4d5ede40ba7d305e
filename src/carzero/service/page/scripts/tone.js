// Draws the part of an image that is in view: values through the window's table onto a canvas.

/** Keeps the canvas that values are turned into colours on. */
export class Tone {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.data = null;
  }

  /**
   * @param {CanvasRenderingContext2D} target in its own pixels
   * @param {import("./pyramid.js").Pyramid} pyramid
   * @param {Uint32Array} table of `fillTable`
   * @param {{scale: number, left: number, top: number}} transform of `transformOf`
   * @param {{width: number, height: number}} pane
   */
  draw(target, pyramid, table, { scale, left, top }, pane) {
    const depth = Math.max(0, Math.floor(Math.log2(1 / scale)));
    const level = pyramid.level(depth);
    const step = scale * 2 ** pyramid.levels.indexOf(level); // pixels of the pane for one of the level
    const first = { column: Math.max(0, Math.floor(-left / step) - 1), row: Math.max(0, Math.floor(-top / step) - 1) };
    const last = {
      column: Math.min(level.columns, Math.ceil((pane.width - left) / step) + 1),
      row: Math.min(level.rows, Math.ceil((pane.height - top) / step) + 1),
    };
    const width = last.column - first.column;
    const height = last.row - first.row;
    if (width <= 0 || height <= 0) return;
    this.#fill(level, table, first, width, height);
    target.imageSmoothingEnabled = step !== 1;
    target.imageSmoothingQuality = "high";
    target.drawImage(this.canvas, 0, 0, width, height, left + first.column * step, top + first.row * step, width * step, height * step);
  }

  #fill({ values, columns }, table, first, width, height) {
    if (this.canvas.width < width) this.canvas.width = width;
    if (this.canvas.height < height) this.canvas.height = height;
    if (this.data?.width !== width || this.data?.height !== height) this.data = new ImageData(width, height);
    const colours = new Uint32Array(this.data.data.buffer);
    for (let row = 0; row < height; row += 1) {
      let from = (first.row + row) * columns + first.column;
      for (let to = row * width; to < (row + 1) * width; to += 1, from += 1) colours[to] = table[values[from]];
    }
    this.context.putImageData(this.data, 0, 0);
  }
}
