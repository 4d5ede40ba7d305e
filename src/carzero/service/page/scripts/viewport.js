// Where the image lies in a pane. Scale is device pixels a pixel of the image; x and y its point in the pane's middle.

export const MOST = 40;
export const LEAST = 0.02;

/** The scale at which the whole image is seen. */
export const fitScale = (image, pane) => Math.min(pane.width / image.columns, pane.height / image.rows);

/** A view with its numbers: of one that fits, those of the pane. */
export function resolve(view, image, pane) {
  if (!view.fit) return view;
  return { fit: true, scale: fitScale(image, pane), x: image.columns / 2, y: image.rows / 2 };
}

/**
 * From the image's pixels to the pane's.
 * @returns {{scale: number, left: number, top: number}} whole left and top, so that at 1:1 a pixel is a pixel
 */
export function transformOf(view, image, pane) {
  const { scale, x, y } = resolve(view, image, pane);
  return { scale, left: Math.round(pane.width / 2 - x * scale), top: Math.round(pane.height / 2 - y * scale) };
}

/** The point of the image under a point of the pane, both in their own pixels. */
export const toImage = ({ scale, left, top }, x, y) => ({ x: (x - left) / scale, y: (y - top) / scale });

/** A view magnified about a point of the image, which stays where it is. */
export function zoom(view, image, pane, factor, about) {
  const { scale, x, y } = resolve(view, image, pane);
  const wanted = Math.min(MOST, Math.max(Math.min(LEAST, fitScale(image, pane)), scale * factor));
  const kept = scale / wanted;
  return clamp({ fit: false, scale: wanted, x: about.x + (x - about.x) * kept, y: about.y + (y - about.y) * kept }, image);
}

/** A view moved by a drag in the pane's pixels. */
export function pan(view, image, pane, right, down) {
  const { scale, x, y } = resolve(view, image, pane);
  return clamp({ fit: false, scale, x: x - right / scale, y: y - down / scale }, image);
}

/** One pixel of the image on one of the screen, about its middle or the point in view. */
export function actual(view, image, pane) {
  const { x, y } = resolve(view, image, pane);
  return { fit: false, scale: 1, x, y };
}

/** Keeps a point of the image in the middle of the pane. */
function clamp(view, image) {
  return { ...view, x: Math.min(image.columns, Math.max(0, view.x)), y: Math.min(image.rows, Math.max(0, view.y)) };
}
