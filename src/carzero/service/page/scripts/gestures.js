// What a pointer does on a pane: drag, two fingers, wheel, double click; told as few plain actions.

const WHEEL = 0.0015; // of magnification, for a wheel's pixel
const LINE = 24; // pixels of a wheel's line

/**
 * Listens on a pane.
 * @param {HTMLElement} target
 * @param {Object} actions `drag(kind, right, down)` in CSS pixels, `zoom(factor, x, y)` about a point of the pane,
 *   `double(x, y)`, `point(x, y)`, `leave()`, `mode()` that gives "window" or "pan" for a plain drag
 */
export function listen(target, actions) {
  const pointers = new Map();
  let kind = null;

  const place = (event) => {
    const box = target.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  target.addEventListener("pointerdown", (event) => {
    if (event.button > 2) return;
    target.focus({ preventScroll: true });
    target.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    // Once two fingers were down, the one that is lifted last does not change the window.
    kind = pointers.size > 1 || event.button > 0 || event.shiftKey ? "pan" : actions.mode();
    event.preventDefault();
  });

  target.addEventListener("pointermove", (event) => {
    const now = place(event);
    actions.point(now.x, now.y);
    const before = pointers.get(event.pointerId);
    if (!before) return;
    if (pointers.size === 2) pinch(event.pointerId, before, now);
    else if (pointers.size === 1) actions.drag(kind, now.x - before.x, now.y - before.y);
    pointers.set(event.pointerId, now);
  });

  function pinch(moved, before, now) {
    const other = [...pointers].find(([id]) => id !== moved)[1];
    const distance = (point) => Math.max(1, Math.hypot(point.x - other.x, point.y - other.y));
    actions.drag("pan", (now.x - before.x) / 2, (now.y - before.y) / 2);
    actions.zoom(distance(now) / distance(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
  }

  for (const ended of ["pointerup", "pointercancel"]) {
    target.addEventListener(ended, (event) => pointers.delete(event.pointerId));
  }
  target.addEventListener("pointerleave", () => actions.leave());
  target.addEventListener("contextmenu", (event) => event.preventDefault());
  target.addEventListener("dblclick", (event) => {
    const { x, y } = place(event);
    actions.double(x, y);
  });
  target.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const { x, y } = place(event);
      const length = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE : 1;
      const faster = event.ctrlKey ? 6 : 1; // a touchpad's pinch comes as small steps with this key
      actions.zoom(Math.exp(-event.deltaY * length * WHEEL * faster), x, y);
    },
    { passive: false },
  );
}
