// An image at full depth and at halved sizes, so that what is drawn never has many more pixels than the screen.

export class Pyramid {
  /**
   * @param {Uint16Array} values row after row
   * @param {number} columns
   * @param {number} rows
   */
  constructor(values, columns, rows) {
    this.columns = columns;
    this.rows = rows;
    this.levels = [{ values, columns, rows }];
  }

  get bytes() {
    return this.levels.reduce((sum, level) => sum + level.values.byteLength, 0);
  }

  /** The value of a pixel, or null outside. */
  valueAt(x, y) {
    const column = Math.floor(x);
    const row = Math.floor(y);
    if (column < 0 || row < 0 || column >= this.columns || row >= this.rows) return null;
    return this.levels[0].values[row * this.columns + column];
  }

  /** The image halved `depth` times; 0 is the image itself. It stops halving at a side of one pixel. */
  level(depth) {
    while (this.levels.length <= depth) {
      const last = this.levels.at(-1);
      if (last.columns < 2 || last.rows < 2) return last;
      this.levels.push(halve(last));
    }
    return this.levels[depth];
  }
}

/** Means of 2 x 2 values; an odd last row or column is left out, less than a pixel of the screen. */
function halve({ values, columns: wide, rows: high }) {
  const columns = wide >> 1;
  const rows = high >> 1;
  const halved = new Uint16Array(columns * rows);
  for (let row = 0; row < rows; row += 1) {
    let above = 2 * row * wide;
    let below = above + wide;
    const start = row * columns;
    for (let column = 0; column < columns; column += 1, above += 2, below += 2) {
      halved[start + column] = (values[above] + values[above + 1] + values[below] + values[below + 1] + 2) >> 2;
    }
  }
  return { values: halved, columns, rows };
}
