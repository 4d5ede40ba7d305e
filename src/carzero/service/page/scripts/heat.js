// A map over an image: colour by its place in the map's scale, its cells as large as they are, peak, box, the unseen.

// The perceptually even colours "inferno" (Smith and van der Walt, CC0) from a quarter of it upwards; a low map is clear.
const COLOURS = [[87, 16, 110], [137, 34, 106], [188, 55, 84], [227, 89, 51], [249, 142, 9], [249, 203, 53], [252, 255, 164]];
const CLEAR_BELOW = 0.25;
const FULL_FROM = 0.95;
const PARTS = 12; // of a cell's side, where it is drawn smoothly
const [HALO, BOX, CROSS] = ["rgb(16 18 22 / 85%)", "rgb(94 214 255)", "rgb(255 255 255)"];

/** The colour of a place in the scale from 0 to 1, as [red, green, blue, opacity]. */
export function colourOf(share) {
  const place = Math.min(1, Math.max(0, share));
  const along = place * (COLOURS.length - 1);
  const index = Math.min(COLOURS.length - 2, Math.floor(along));
  const rise = Math.min(1, Math.max(0, (place - CLEAR_BELOW) / (FULL_FROM - CLEAR_BELOW)));
  const mixed = COLOURS[index].map((from, part) => from + (COLOURS[index + 1][part] - from) * (along - index));
  return [...mixed.map(Math.round), rise * rise * (3 - 2 * rise)];
}

/**
 * Draws a map, its box and its peak.
 * @param {CanvasRenderingContext2D} target
 * @param {Object} map of the service: cells, their size and origin in the image's pixels, peak, box, strength of colours
 * @param {{columns: number, rows: number}} image
 * @param {{scale: number, left: number, top: number}} transform
 * @param {{opacity: number, smooth: boolean}} overlay
 * @param {number} unit length of a CSS pixel in the target's
 */
export function drawMap(target, map, image, transform, { opacity, smooth }, unit) {
  const { scale, left, top } = transform;
  const cells = toCanvas(map, smooth);
  const place = {
    x: left + map.origin.x * scale,
    y: top + map.origin.y * scale,
    width: map.cell.width * map.map.columns * scale,
    height: map.cell.height * map.map.rows * scale,
  };
  const whole = { x: left, y: top, width: image.columns * scale, height: image.rows * scale };
  target.save();
  clipTo(target, whole);
  drawUnseen(target, whole, place, unit);
  target.globalAlpha = opacity * map.strength;
  target.imageSmoothingEnabled = smooth;
  target.imageSmoothingQuality = "high";
  target.drawImage(cells, place.x, place.y, place.width, place.height);
  target.globalAlpha = 1;
  if (map.box) drawBox(target, map.box, transform, unit);
  if (map.peak.inside) drawCross(target, left + map.peak.x * scale, top + map.peak.y * scale, unit);
  target.restore();
}

/** The colour bar as the map looks on mid grey, from left to right. */
export function drawScale(canvas, opacity) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.fillStyle = "rgb(72 72 72)";
  context.fillRect(0, 0, width, height);
  for (let x = 0; x < width; x += 1) {
    const [red, green, blue, strength] = colourOf(x / (width - 1));
    context.fillStyle = `rgb(${red} ${green} ${blue} / ${strength * opacity})`;
    context.fillRect(x, 0, 1, height);
  }
}

const drawn = new WeakMap(); // maps as canvases, plain and smooth

function toCanvas(map, smooth) {
  const kept = drawn.get(map) ?? {};
  drawn.set(map, kept);
  kept[smooth] ??= smooth ? paint(interpolate(map.map, PARTS), map.scale) : paint(map.map, map.scale);
  return kept[smooth];
}

function paint({ rows, columns, values }, [low, high]) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const data = new ImageData(columns, rows);
  values.forEach((value, index) => {
    const [red, green, blue, strength] = colourOf(high > low ? (value - low) / (high - low) : 0);
    data.data.set([red, green, blue, Math.round(255 * strength)], 4 * index);
  });
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
}

/** Values between cell centres, bilinear; beyond the outer centres those of the nearest cell. */
function interpolate({ rows, columns, values }, parts) {
  const finer = new Float64Array(rows * columns * parts * parts);
  const at = (row, column) => values[Math.min(rows - 1, Math.max(0, row)) * columns + Math.min(columns - 1, Math.max(0, column))];
  for (let row = 0; row < rows * parts; row += 1) {
    const y = (row + 0.5) / parts - 0.5;
    const [above, down] = [Math.floor(y), y - Math.floor(y)];
    for (let column = 0; column < columns * parts; column += 1) {
      const x = (column + 0.5) / parts - 0.5;
      const [before, right] = [Math.floor(x), x - Math.floor(x)];
      const upper = at(above, before) * (1 - right) + at(above, before + 1) * right;
      const lower = at(above + 1, before) * (1 - right) + at(above + 1, before + 1) * right;
      finer[row * columns * parts + column] = upper * (1 - down) + lower * down;
    }
  }
  return { rows: rows * parts, columns: columns * parts, values: finer };
}

function clipTo(target, { x, y, width, height }) {
  target.beginPath();
  target.rect(x, y, width, height);
  target.clip();
}

/** Darkens and hatches what lies in the image but outside the cells: the model has not seen it. */
function drawUnseen(target, whole, seen, unit) {
  const outside = new Path2D();
  outside.rect(whole.x, whole.y, whole.width, whole.height);
  outside.rect(seen.x, seen.y, seen.width, seen.height);
  target.save();
  target.clip(outside, "evenodd");
  target.fillStyle = "rgb(0 0 0 / 55%)";
  target.fillRect(whole.x, whole.y, whole.width, whole.height);
  target.strokeStyle = "rgb(255 255 255 / 16%)";
  target.lineWidth = unit;
  target.beginPath();
  for (let start = whole.x - whole.height; start < whole.x + whole.width; start += 10 * unit) {
    target.moveTo(start, whole.y + whole.height);
    target.lineTo(start + whole.height, whole.y);
  }
  target.stroke();
  target.restore();
}

function drawBox(target, { xmin, ymin, xmax, ymax }, { scale, left, top }, unit) {
  for (const [ink, width] of [[HALO, 4], [BOX, 2]]) {
    target.strokeStyle = ink;
    target.lineWidth = width * unit;
    target.strokeRect(left + xmin * scale, top + ymin * scale, (xmax - xmin) * scale, (ymax - ymin) * scale);
  }
}

/** An open cross, whose middle stays visible. */
function drawCross(target, x, y, unit) {
  for (const [ink, width] of [[HALO, 5], [CROSS, 2]]) {
    target.strokeStyle = ink;
    target.lineWidth = width * unit;
    target.beginPath();
    for (const [right, down] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      target.moveTo(x + 5 * unit * right, y + 5 * unit * down);
      target.lineTo(x + 13 * unit * right, y + 13 * unit * down);
    }
    target.stroke();
  }
}
