// Grey levels on a screen: the exact linear window of DICOM PS3.3 C.11.2.1.3.2, its table, and windows to begin with.

export const LEVELS = 65536;

/**
 * The brightness of a level under a window.
 * @param {number} level
 * @param {{centre: number, width: number}} window in levels, width above 0
 * @returns {number} 0 to 1
 */
export const brightness = (level, { centre, width }) => Math.min(1, Math.max(0, (level - centre) / width + 0.5));

/**
 * The colour of every value, as the 32 bits of an opaque canvas pixel.
 * @param {number} largest level that occurs
 * @param {{centre: number, width: number}} window
 * @param {boolean} inverted
 * @param {Uint32Array} table is filled and returned
 */
export function fillTable(largest, window, inverted, table = new Uint32Array(LEVELS)) {
  for (let value = 0; value <= largest; value += 1) {
    const share = brightness(value, window);
    const grey = Math.round(255 * (inverted ? 1 - share : share));
    table[value] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
  }
  return table;
}

/** The window whose ends are two values. */
export const windowBetween = (low, high) => ({ centre: (low + high) / 2, width: Math.max(1, high - low) });

/**
 * A window after a drag: to the right wider, upwards brighter, as in most viewers.
 * @param {{centre: number, width: number}} window
 * @param {number} right in CSS pixels
 * @param {number} down in CSS pixels
 * @param {number} largest level of the image
 */
export function dragWindow({ centre, width }, right, down, largest) {
  const step = (largest + 1) / 1024;
  return {
    centre: Math.min(largest, Math.max(0, centre + down * step)),
    width: Math.min(2 * (largest + 1), Math.max(1, width + right * step)),
  };
}

/** How often each value occurs. */
export function countValues(values) {
  const counts = new Uint32Array(LEVELS);
  for (let index = 0; index < values.length; index += 1) counts[values[index]] += 1;
  return counts;
}

/** The value below which a share of the pixels lies; pixels at 0, which are border on most images, are not counted. */
export function quantile(counts, share) {
  let total = 0;
  for (let value = 1; value < counts.length; value += 1) total += counts[value];
  let sum = 0;
  for (let value = 1; value < counts.length; value += 1) {
    sum += counts[value];
    if (sum > 0 && sum >= share * total) return value;
  }
  return counts.length - 1;
}

/** Numbers as the file has them, which may run the other way: a level, and a window. */
export const toFileUnit = (level, { intercept, slope }) => intercept + slope * level;
export const toFileWindow = ({ centre, width }, facts) => ({ centre: toFileUnit(centre, facts), width: width * Math.abs(facts.slope) });

/**
 * Windows to choose from: the file's own, and four from the values of the image.
 * @returns {Array<{id: string, name: string|null, window: {centre: number, width: number}}>} name null: the page's own
 */
export function listPresets(facts, counts) {
  const own = { id: "file", name: null, window: facts.window };
  const others = (facts.presets ?? []).map((preset, index) => ({
    id: `file-${index}`,
    name: preset.name,
    window: { centre: preset.centre, width: preset.width },
  }));
  const at = (share) => quantile(counts, share);
  return [
    own,
    ...others.filter(({ window }) => window.centre !== own.window.centre || window.width !== own.window.width),
    { id: "full", name: null, window: windowBetween(0, facts.largest) },
    { id: "trimmed", name: null, window: windowBetween(at(0.01), at(0.99)) },
    { id: "dark", name: null, window: windowBetween(at(0.01), at(0.6)) },
    { id: "bright", name: null, window: windowBetween(at(0.4), at(0.995)) },
  ];
}
